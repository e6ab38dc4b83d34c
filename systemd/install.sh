#!/bin/sh
# What `make install` and `make uninstall` do: install.sh [all|program|service|uninstall]
#   DESTDIR   put in front of every path, for packagers: then nothing of this machine is touched
#   PREFIX    /usr/local
#   PYTHON    python3; 3.11 or newer
#   WHEELS    a directory to install from, for machines without a network: pip wheel -w WHEELS '.[systemd]'
#
#   PREFIX/lib/nodeagent          a virtualenv with the program and what it needs, as pinned in requirements.lock
#   PREFIX/bin/nodeagent          the command
#   PREFIX/lib/systemd/system     units     PREFIX/lib/sysusers.d, tmpfiles.d   the group, the directories
#   PREFIX/share/nodeagent        drop-ins for the unit, and the example configuration
#   /etc/nodeagent/nodeagent.toml the configuration, which is never overwritten
set -eu
cd "$(dirname "$0")/.."
DESTDIR=${DESTDIR-} PREFIX=${PREFIX:-/usr/local} PYTHON=${PYTHON:-python3} WHEELS=${WHEELS-}
case $PREFIX in
[!/]* | *[!A-Za-z0-9._/+-]*)
    echo "install: PREFIX takes an absolute path of letters, digits and ._+-, found '$PREFIX'" >&2
    exit 2
    ;;
esac
home=$PREFIX/lib/nodeagent
share=$DESTDIR$PREFIX/share/nodeagent
units=$DESTDIR$PREFIX/lib/systemd/system

program() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "install: nodeagent needs Python 3.11 or newer, but $PYTHON is $("$PYTHON" -V 2>&1)" >&2; exit 1; }
    case $("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
    /home/* | /root/* | /run/user/*)
        echo "install: the service sees no home directories (ProtectHome=), and $PYTHON is in one;" \
            "name another: make install PYTHON=/usr/bin/python3" >&2
        exit 1
        ;;
    esac
    venv=$DESTDIR$home
    "$PYTHON" -m venv --clear "$venv"
    # Versions are those of requirements.lock; names of what only tests need are constraints that bind nobody.
    sed -n 's/^\([A-Za-z0-9._-]*==[^ ;\\]*\).*/\1/p' requirements.lock >"$venv/versions.txt"
    if [ -n "$WHEELS" ]; then # versions are those of the wheels
        set -- --no-index --find-links "$WHEELS" 'nodeagent[systemd]'
    else
        set -- --constraint "$venv/versions.txt" '.[systemd]'
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --root-user-action ignore "$@"
    "$venv/bin/python" -m pip uninstall --quiet --disable-pip-version-check --root-user-action ignore -y pip setuptools
    find "$venv/bin" -type f ! -name nodeagent -delete
    # Not with DESTDIR, and whatever is in the environment of who calls it.
    sed -i "1s|.*|#!$home/bin/python -I|" "$venv/bin/nodeagent"
    sed -i '/^command = /d' "$venv/pyvenv.cfg"
    install -d "$DESTDIR$PREFIX/bin"
    ln -sfn ../lib/nodeagent/bin/nodeagent "$DESTDIR$PREFIX/bin/nodeagent"
}

service() {
    install -d "$units" "$share" "$DESTDIR/etc/nodeagent"
    for unit in nodeagent.service nodeagent-restore.service nodeagent.slice; do
        install_text "systemd/$unit" "$units/$unit"
    done
    for drop_in in nodeagent-nic.conf nodeagent-observe.conf nodeagent-pmu.conf nodeagent-realtime.conf; do
        install_text "systemd/$drop_in" "$share/$drop_in"
    done
    for kind in sysusers tmpfiles; do
        install -D -m 644 "systemd/nodeagent.$kind" "$DESTDIR$PREFIX/lib/$kind.d/nodeagent.conf"
    done
    install -m 644 systemd/nodeagent.toml "$share/nodeagent.toml"
    [ -e "$DESTDIR/etc/nodeagent/nodeagent.toml" ] ||
        install -m 644 systemd/nodeagent.toml "$DESTDIR/etc/nodeagent/nodeagent.toml"
    here || return 0
    systemd-sysusers "$PREFIX/lib/sysusers.d/nodeagent.conf"
    systemd-tmpfiles --create "$PREFIX/lib/tmpfiles.d/nodeagent.conf"
    systemctl daemon-reload
    now='enable --now'
    ! systemctl --quiet is-active nodeagent.service || now=restart
    echo "installed; now: systemctl $now nodeagent"
}

install_text() {
    sed "s|/usr/local/|$PREFIX/|g" "$1" >"$2"
    chmod 644 "$2"
}

# True on the machine that is to run it: systemd is pid 1 there, and it is not the image of another one.
here() {
    [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]
}

uninstall() {
    if here; then
        systemctl disable --now nodeagent.service || true
        "$PREFIX/bin/nodeagent" restore || true # what agent.on_exit = "keep" has left
    fi
    rm -f "$units/nodeagent.service" "$units/nodeagent-restore.service" "$units/nodeagent.slice" \
        "$DESTDIR$PREFIX/lib/sysusers.d/nodeagent.conf" "$DESTDIR$PREFIX/lib/tmpfiles.d/nodeagent.conf" \
        "$DESTDIR$PREFIX/bin/nodeagent"
    rm -rf "$DESTDIR$home" "$share"
    if here; then systemctl daemon-reload; fi
    echo "kept: /etc/nodeagent, /etc/systemd/system/nodeagent.service.d, /var/lib/nodeagent and the group nodeagent"
}

case ${1-all} in
all)
    program
    service
    ;;
program | service | uninstall) "$1" ;;
*) sed -n '2s/^# //p' "$0" >&2; exit 2 ;;
esac
