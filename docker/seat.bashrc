# shellcheck shell=bash
# The terminal of a seat: a short prompt, and a note when the quota is nearly used up.
PS1='\w\$ '
PROMPT_COMMAND='[ -s /tmp/quota ] && cat /tmp/quota && echo'
export SHELL=/bin/bash
if [ -z "$LABS_WELCOMED" ]; then
    export LABS_WELCOMED=1
    echo "invoke labs lists the labs. invoke learn LLM01 writes your sheet into work/."
fi
