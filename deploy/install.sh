#!/bin/sh
# Installs or upgrades ollama-proxy on this Debian machine; may be run again at any time.
#
#   sudo deploy/install.sh [--nginx] [--listen ADDRESS:PORT] [--dry-run]
#
#   --nginx                 also put the nginx site in place, and have the gateway believe nginx on this machine who
#                           its clients are (nginx itself: apt-get install nginx)
#   --listen ADDRESS:PORT   address of the socket unit (127.0.0.1:8080); 0.0.0.0:8080 without nginx in front
#   --dry-run               only print the commands
#
# What is there already stays as it is: /etc/ollama-proxy/config.yaml, /etc/ollama-proxy/environment, the state.
set -eu

name=ollama-proxy
target=/opt/$name
settings=/etc/$name
units=/etc/systemd/system
source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

with_nginx=no
listen=
dry_run=no

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

# Every change of the machine goes through this one.
run() {
    if [ "$dry_run" = yes ]; then
        echo "+ $*"
    else
        "$@"
    fi
}

# Writes standard input to a file, unless the file exists: write_new PATH MODE OWNER:GROUP
write_new() {
    if [ -e "$1" ]; then
        echo "$1 stays as it is"
        return
    fi
    if [ "$dry_run" = yes ]; then
        echo "+ write $1 ($2 $3)"
        cat >/dev/null
    else
        (umask 077 && cat >"$1")
        chown "$3" "$1"
        chmod "$2" "$1"
    fi
}

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --nginx) with_nginx=yes ;;
        --dry-run) dry_run=yes ;;
        --listen)
            [ $# -ge 2 ] || fail "--listen needs ADDRESS:PORT"
            shift
            listen=$1
            ;;
        --listen=*) listen=${1#*=} ;;
        -h | --help)
            sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p;}' "$0"
            exit 0
            ;;
        *) fail "unknown argument $1 (see --help)" ;;
        esac
        shift
    done
    case $listen in
    '' | *:[0-9]*) ;;
    *) fail "--listen needs ADDRESS:PORT, not $listen" ;;
    esac
}

check_machine() {
    [ "$dry_run" = yes ] && return
    [ "$(id -u)" -eq 0 ] || fail "has to run as root (or with --dry-run)"
    command -v systemctl >/dev/null || fail "this machine has no systemd; see deploy/README.md for other ways"
    python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "needs Python 3.11 with venv: apt-get install python3 python3-venv"
    [ "$with_nginx" = no ] || command -v nginx >/dev/null || fail "nginx is missing: apt-get install nginx"
}

create_user() {
    if getent passwd $name >/dev/null; then
        echo "user $name is there"
    else
        run useradd --system --user-group --no-create-home --home-dir /var/lib/$name --shell /usr/sbin/nologin $name
    fi
}

copy_program() {
    run install -d -m 0755 $target $target/config
    if [ "$source" != $target ]; then
        # Whole directories are replaced: no module of an older version may stay behind.
        run rm -rf $target/ollama_proxy $target/deploy
        run cp -R "$source/ollama_proxy" "$source/deploy" $target/
        run install -m 0644 "$source/wsgi.py" "$source/requirements.txt" $target/
        run install -m 0644 "$source/config/gunicorn.conf.py" $target/config/
        write_build
    fi
    [ -x $target/.venv/bin/python ] || run python3 -m venv $target/.venv
    run $target/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        -r $target/requirements.txt
    # The service itself may not write here.
    run $target/.venv/bin/python -m compileall -q $target/ollama_proxy $target/wsgi.py
    run chmod -R u=rwX,go=rX $target/ollama_proxy $target/deploy
}

# What /api/version says of this build; without git, or outside of a checkout, nothing.
write_build() {
    commit=$(git -c safe.directory='*' -C "$source" log -1 --format='{"commit":"%H","date":"%cI"}' 2>/dev/null) || return 0
    echo "$commit" | write_new $target/ollama_proxy/build.json 0644 root:root
}

write_settings() {
    run install -d -m 0750 -o root -g $name $settings
    write_new $settings/config.yaml 0640 root:$name <<'CONFIG'
# Edits are picked up while the service runs. Every setting, and how to check this file: /opt/ollama-proxy/deploy/README.md
# Without a token list the first start makes a token and shows it once: journalctl -u ollama-proxy
#auth:
#  generate_tokens: ["team-token-1"]
service:
  base_url: "http://localhost:11434"
CONFIG
    write_new $settings/environment 0600 root:root <<'ENVIRONMENT'
# Keys of providers and other variables for the service, NAME=value. Read at the start only.
#OPENAI_API_KEY=
ENVIRONMENT
}

# Without it every client behind nginx has the address of nginx, in the logs and for wrong tokens.
trust_nginx() {
    if grep -Eqs '^[^#]*trusted_proxies' $settings/config.yaml; then
        echo "trusted_proxies in $settings/config.yaml stays as it is"
        return
    fi
    run install -d -m 0755 $units/$name.service.d
    printf '[Service]\nEnvironment=OLLAMA_PROXY__SERVER__TRUSTED_PROXIES=[127.0.0.1]\n' |
        write_new $units/$name.service.d/nginx.conf 0644 root:root
}

install_units() {
    run install -m 0644 "$source/deploy/systemd/$name.service" "$source/deploy/systemd/$name.socket" $units/
    run install -m 0644 "$source/deploy/logrotate/$name" /etc/logrotate.d/$name
    run install -D -m 0644 "$source/deploy/systemd/$name.tmpfiles" /etc/tmpfiles.d/$name.conf
    if [ -n "$listen" ]; then
        run install -d -m 0755 $units/$name.socket.d
        run rm -f $units/$name.socket.d/listen.conf
        printf '[Socket]\nListenStream=\nListenStream=%s\n' "$listen" |
            write_new $units/$name.socket.d/listen.conf 0644 root:root
    fi
    run systemctl daemon-reload
    run systemctl enable $name.socket $name.service
    if [ -n "$listen" ]; then
        # A socket takes a new address only while nobody uses it.
        run systemctl stop $name.service $name.socket
    fi
    run systemctl start $name.socket
    run systemctl restart $name.service
}

install_site() {
    run install -m 0644 "$source/deploy/nginx/$name.conf" /etc/nginx/sites-available/$name.conf
    run ln -sf ../sites-available/$name.conf /etc/nginx/sites-enabled/$name.conf
    # Debian's sample page also wants to be the default on port 80; its file in sites-available stays.
    run rm -f /etc/nginx/sites-enabled/default
    run nginx -t
    run systemctl reload-or-restart nginx
}

read_arguments "$@"
check_machine
create_user
copy_program
write_settings
[ "$with_nginx" = no ] || trust_nginx
install_units
[ "$with_nginx" = no ] || install_site
echo "$name is in place. Its token and its messages: journalctl -u $name"
