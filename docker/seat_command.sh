#!/bin/sh
# The commands of a workstation, in the terminal of a seat: `invoke check LLM06`, or `check LLM06`.
verb=${0##*/}
if [ "$verb" = invoke ]; then
    verb=${1:-labs}
    if [ $# -gt 0 ]; then shift; fi
fi
cd /lab || exit
case $verb in
    lab) exec python -m labs "$@" ;;
    labs | --list) exec python -m labs ;;
    chat | check | learn | progress) exec python -m labs "$verb" "$@" ;;
esac
echo "what: A seat doesn't have 'invoke $verb'." >&2
echo "why: It has lab, labs, learn, check, progress and chat. The teacher's machine has the others." >&2
echo "fix: invoke labs; a run's report is in outputs/, in the list of files on the left" >&2
exit 2
