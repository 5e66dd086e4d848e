#!/bin/bash
# In the guest, from root's login on the serial line: every way to the sockets, as root and as an ordinary user, or as one
# of the two (terok.users=0 or 1000 on the kernel's command line).
#
# Prints one line a check, `TEROK PASS ...` or `TEROK FAIL ...`, and `TEROK RESULT` at the end. A container's output
# is not looked at (this policy cuts its pipes to a login shell): its exit codes are.
set -u
cd /opt/test
export PATH=/opt/terok/bin:$PATH XDG_RUNTIME_DIR=
policies=/opt/test/policies
loaded=$(echo /etc/selinux/default/policy/policy.*)
installer=$(echo /opt/terok/lib/python3*/site-packages/terok_host/selinux/install_policy.sh)
image=localhost/test:1

say() { echo "TEROK $*" "[$(cut -d. -f1 /proc/uptime)s]"; }
check() { # WHAT WANTED GOT
  if [[ $2 == "$3" ]]; then say "PASS $who $1"; else say "FAIL $who $1: got '$3', wanted '$2'"; fi
}
works() {
  local what=$1 code
  shift
  "$@" >"/tmp/out.$uid" 2>&1
  code=$?
  check "$what" 0 $code
  [[ $code == 0 ]] || tail -n 5 "/tmp/out.$uid" | sed 's/^/TEROK      /'
}
refused() { local what=$1; shift; "$@" >/tmp/out.$uid 2>&1; check "$what" refused "$([[ $? == 0 ]] && echo worked || echo refused)"; }
shows() { local what=$1; shift; grep -qF -- "$1" "/tmp/setup.$uid"; check "setup: $what" 0 $?; }

as() { # as the user under test
  if [[ $uid == 0 ]]; then "$@"; else
    runuser -u lab -- env -C /home/lab HOME=/home/lab XDG_RUNTIME_DIR=/run/user/1000 \
      DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus "$@"
  fi
}
places() { # for uid: where the product keeps things
  if [[ $uid == 0 ]]; then who=root run=/run/terok data=/var/lib/terok config=/root/.config/terok
  else who=user run=/run/user/1000/terok data=/home/lab/.local/share/terok config=/home/lab/.config/terok; fi
}
setup() { as terok setup >/tmp/setup.$uid 2>&1; }
start() { as terok run "$1" --scope demo --allow-missing -- -d "$image" sleep 600 || { cat "$data/containers/$1/hook-error.log"; false; }; }
stop() { as podman rm -f -t 0 "$@" && as terok cleanup "$1"; }
inside() { local name=$1; shift; as podman exec "$name" "$@" </dev/null; }
# commands for `ask`; a sidecar's cold start is slow in here. The signer answers five bytes that ask for its keys with at
# least five (draft-miller-ssh-agent).
connect() { echo "nc.openbsd -w 5 -N -U $1"; }
http() { echo "printf 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' | nc.openbsd -w 40 $* | grep -q '^HTTP/1.1 '"; }
agent() { echo "[ \$(printf '\\0\\0\\0\\1\\13' | nc.openbsd -w 40 -N -U $1 | wc -c) -ge 5 ]"; }

ask() { # CONTAINER [works|refused WHAT COMMAND]...: at most six commands in one exec, whose exit code has a bit for each
  local name=$1 script=code=0 bit=1 code wanted got
  shift
  local checks=("$@")
  while [[ $# -gt 0 ]]; do
    script+="; { $3; } </dev/null >/dev/null 2>&1 || code=\$((code + $bit))"
    bit=$((bit * 2))
    shift 3
  done
  inside "$name" sh -c "$script; exit \$code" >"/tmp/out.$uid" 2>&1
  code=$?
  set -- "${checks[@]}"
  for ((bit = 1; $# > 0; bit *= 2)); do
    if ((code > 63)); then got="exec failed: $(tail -n 1 "/tmp/out.$uid")"
    elif ((code & bit)); then got=refused
    else got=works; fi
    check "$2" "$1" "$got"
    shift 3
  done
}
label_of() { tr -d '\0' <"/proc/$(as podman inspect -f '{{.State.Pid}}' "$1")/attr/current"; }
denial() { # LABEL TARGET-TYPE: the audit log has that this label was not let in
  local i
  for ((i = 0; i < 20; i++)); do
    grep -a type=AVC /var/log/audit/audit.log | grep -F "scontext=$1 " | grep -F '{ connectto }' | grep -qE "tcontext=\S*$2" && return
    sleep 0.5
  done
  grep -a type=AVC /var/log/audit/audit.log | grep -F "scontext=$1 " | tail -n 3
  cat "/tmp/serve.$uid"
  return 1
}
mode() { mkdir -p "$config"; printf 'services: {mode: %s}\n' "$1" >"$config/config.yml"; chown -R "$uid:$uid" "$config"; }

load() { # a policy by name, into the kernel
  cat "$policies/$1" >"$loaded" && load_policy
}

# --- stages ----------------------------------------------------------------------------------------------

prepare() {
  works "the test image" as podman import -q /opt/test/image.tar "$image"
  works "a credential" add_credential
  setup
}
add_credential() { echo sk-ant-test | as terok vault add demo anthropic; }

plain() {
  setup
  shows "own labels are in use" "sockets          ok (own labels:"
  shows "the policy module is not needed" "terok_socket_t   ok (policy not installed, not needed)"
  works "a container starts" start one
  local label; label=$(label_of one)
  check "it is a confined container" yes "$([[ $label == system_u:system_r:container_t:s0:c* ]] && echo yes || echo "$label")"
  ask one \
    works "it sees its runtime directory" "ls /run/terok/vault.sock" \
    works "it reads its resolv.conf" "cat /etc/resolv.conf" \
    works "own label: its vault answers" "$(http -U /run/terok/vault.sock)" \
    works "own label: it connects to its gate" "$(connect /run/terok/gate.sock)" \
    works "own label: its signer answers" "$(agent /run/terok/ssh-agent.sock)" \
    works "a listener in its network namespace: the vault" "$(http 127.0.0.1 9419)"
  local supervisor; supervisor=$(pgrep -u "$uid" -x terok-superv | head -1)
  check "the supervisor's later sockets are its own" "''" "'$(tr -d '\0' <"/proc/${supervisor:-none}/attr/sockcreate" || echo unreadable)'"

  as python3 /opt/test/serve.py "$run/one/unlabelled.sock" >"/tmp/serve.$uid" 2>&1 &
  local server=$!
  await "$run/one/unlabelled.sock"
  isolation
  stop one two >/dev/null 2>&1
  kill $server
}

isolation() { # what only an enforcing kernel refuses
  ask one refused "an unlabelled socket" "$(connect /run/terok/unlabelled.sock)"
  works "... for its label" denial "$(label_of one)" ":unconfined_t:"
  as podman run -d --name two --network=none -v "$run/one:/other" "$image" sleep 600 >/dev/null
  ask two refused "another container, by the label of the directory" "ls /other/vault.sock"
  as podman rm -f -t 0 two >/dev/null
  as podman run -d --name two --network=none -v "$run/one:/other:z" "$image" sleep 600 >/dev/null
  ask two \
    works "another container sees a directory that is shared with :z" "ls /other/vault.sock" \
    refused "... and still may not connect to a socket in it" "$(connect /other/vault.sock)"
  works "... for its categories" denial "$(label_of two)" ":container_t:"
  ask one works "... while the first one may" "$(connect /run/terok/vault.sock)"
}

tcp() {
  mode tcp
  setup
  shows "tcp is in use" "sockets   ok (not needed: services.mode is tcp)"
  works "tcp: a container starts" start tcp
  ask tcp works "tcp: its vault answers" "$(http 127.0.0.1 9419)"
  stop tcp >/dev/null 2>&1
  mode socket
}

refusing() {
  setup
  shows "the policy is missing" "terok_socket_t   WARN (policy NOT installed)"
  shows "what that means" "Containers cannot connect to service sockets."
  shows "the first fix" "install policy: sudo bash $installer"
  shows "the second fix" "or opt out:     add \`services: {mode: tcp}\` to ~/.config/terok/config.yml"
  refused "a start that the kernel allows no socket for" start no
  works "... names the first other way" grep -qF "sudo bash $installer" "$data/containers/no/hook-error.log"
  works "... and the second" grep -qF 'services: {mode: tcp}' "$data/containers/no/hook-error.log"
  stop no >/dev/null 2>&1
  mode tcp
  works "tcp where sockets are refused: a container starts" start tcp
  ask tcp works "tcp where sockets are refused: its vault answers" "$(http 127.0.0.1 9419)"
  stop tcp >/dev/null 2>&1
  mode socket
}

module_only() { # own labels refused, the module loaded
  setup
  shows "the module is in use" "sockets          ok (policy module: labelled terok_socket_t)"
  shows "the module is installed" "terok_socket_t   ok (policy installed)"
  works "module: a container starts" start mod
  works "module: the log says so" grep -qF "they are terok_socket_t" "$data/containers/mod/supervisor.log"
  as python3 /opt/test/serve.py "$run/mod/unlabelled.sock" >"/tmp/serve.$uid" 2>&1 &
  local server=$!
  await "$run/mod/unlabelled.sock"
  ask mod \
    works "module: its vault answers" "$(http -U /run/terok/vault.sock)" \
    works "module: its signer answers" "$(agent /run/terok/ssh-agent.sock)" \
    refused "module: an unlabelled socket" "$(connect /run/terok/unlabelled.sock)"
  stop mod >/dev/null 2>&1
  kill $server
}

module() { # Debian's policy and the module
  setup
  shows "own labels stay in use" "sockets          ok (own labels:"
  shows "the module is installed" "terok_socket_t   ok (policy installed)"
  works "install_policy.sh --check, as any user" as bash "$installer" --check
}

stale() {
  setup
  shows "an older module is noticed" "terok_socket_t   WARN (policy of another version installed)"
  as bash "$installer" --check >/dev/null 2>&1
  check "install_policy.sh --check notices it" 3 $?
}

installing() { # the script itself, as an administrator uses it
  refused "install_policy.sh by an ordinary user" as_lab bash "$installer"
  works "install_policy.sh" bash "$installer"
  works "install_policy.sh --check finds it, as any user" as_lab bash "$installer" --check
  setup
  shows "the module is installed" "terok_socket_t   ok (policy installed)"
  bash "$installer" >/tmp/again 2>&1
  check "install_policy.sh again changes nothing" "terok_socket: already installed" "$(cat /tmp/again)"
  works "a container starts beside it" start one
  ask one works "its vault answers" "$(http -U /run/terok/vault.sock)"
  stop one >/dev/null 2>&1
  as terok uninstall >/tmp/uninstalled 2>&1
  works "uninstall says how to remove it" grep -F "sudo semodule -r terok_socket" /tmp/uninstalled
  works "install_policy.sh --remove" bash "$installer" --remove
  bash "$installer" --check >/dev/null 2>&1
  check "install_policy.sh --check misses it then" 1 $?
  works "install_policy.sh --remove again" bash "$installer" --remove
}
as_lab() { local uid=1000; as "$@"; }

confined() { # AppArmor, with the profile that Debian and Ubuntu have for dnsmasq, in force
  # a rootful container asks the host's resolver; without one there is nothing for a dnsmasq to do
  [[ $uid != 0 ]] || echo 'nameserver 192.0.2.53' >/etc/resolv.conf
  works "AppArmor: the test image" as podman import -q /opt/test/image.tar "$image"
  setup
  shows "a profile that confines dnsmasq is noticed" "An AppArmor profile confines dnsmasq"
  works "AppArmor: a container starts meanwhile" start static
  cp "/tmp/out.$uid" "/tmp/said.$uid"
  works "AppArmor: ... and says how" grep -F "resolved once, at the start" "/tmp/said.$uid"
  check "AppArmor: ... without a dnsmasq" none "$(resolver_of static)"
  stop static >/dev/null 2>&1
  sed -n "s/.*fix: \(printf .*\)/\1/p" "/tmp/setup.$uid" | sed 's/sudo //g' >"/tmp/fix.$uid"
  works "AppArmor: what setup prints can be pasted" flock /tmp/fix.lock bash -e "/tmp/fix.$uid"
  setup
  check "setup: the mended profile is fine" no "$(grep -q AppArmor "/tmp/setup.$uid" && echo yes || echo no)"
  works "AppArmor: a container starts with dnsmasq" start live
  check "AppArmor: ... which works under the profile" "dnsmasq (enforce)" "$(resolver_of live)"
  stop live >/dev/null 2>&1
}
resolver_of() { # CONTAINER: the AppArmor label of its dnsmasq
  local pid; pid=$(pgrep -f "dnsmasq .*$data/containers/$1/" | head -1)
  if [[ -n $pid ]]; then cat "/proc/$pid/attr/current"; else echo none; fi
}

await() { # a host process's socket, without which a refusal would prove nothing
  local i
  for ((i = 0; i < 300; i++)); do [[ -S $1 ]] && return; sleep 0.1; done
  check "a host process listens at $1" yes "no: $(tail -n 1 "/tmp/serve.$uid")"
}

each() { # STAGE, for root, the user, or both side by side
  local uid who run data config
  for uid in $users; do
    ( places; "$1" ) 2>&1 | tee -a /tmp/results | grep -a --line-buffered '^TEROK' &
  done
  wait
}
under() { # POLICY STAGE
  load "$1" || echo "TEROK FAIL the policy $1 cannot be loaded" | tee -a /tmp/results
  each "$2"
}
users=$(sed -n 's/.*terok\.users=\([0-9]*\).*/\1/p' /proc/cmdline)
users=${users:-0 1000}

rules() { # the other policies, where there is an enforcing kernel
  [[ $(getenforce) == Enforcing ]] || return
  each tcp
  under refusing refusing
  under refusing-module module_only
  under module module
  under stale stale
  # the same checks on a permissive kernel: those that only enforcement passes must fail, or they prove nothing
  load plain && setenforce 0
  each permissive
}

main() {
  uid=0; places
  say "kernel $(uname -r), $(podman --version), $(getenforce), $(id -Z)"
  for ((i = 0; i < 100; i++)); do [[ -S /run/user/1000/bus ]] && break; sleep 0.2; done
  if grep -q Y /sys/module/apparmor/parameters/enabled 2>/dev/null; then
    sed -i 's/flags=(complain,/flags=(/' /etc/apparmor.d/usr.sbin.dnsmasq
    apparmor_parser -r /etc/apparmor.d/usr.sbin.dnsmasq
    each confined
  elif grep -q terok.stage=installing /proc/cmdline; then
    each prepare
    each installing
  else
    each prepare
    each plain
    rules
  fi
  local passed failed
  passed=$(grep -ac '^TEROK PASS' /tmp/results) failed=$(grep -ac '^TEROK FAIL' /tmp/results)
  say "RESULT $([[ $failed == 0 && $passed -gt 8 ]] && echo PASS || echo FAIL): $passed passed, $failed failed"
}

permissive() {
  works "permissive: a container starts" start one >/dev/null
  as python3 /opt/test/serve.py "$run/one/unlabelled.sock" >"/tmp/serve.$uid" 2>&1 &
  local server=$!
  await "$run/one/unlabelled.sock"
  isolation >/tmp/isolation.$uid
  check "permissive: the checks of isolation fail" yes "$(grep -q '^TEROK FAIL' /tmp/isolation.$uid && echo yes || echo no)"
  setup
  check "permissive: setup says nothing" no "$(grep -q SELinux /tmp/setup.$uid && echo yes || echo no)"
  stop one two >/dev/null 2>&1
  kill $server
}

main
