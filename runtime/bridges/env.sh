# Sets the variables that point at terok's services, for shells that did not inherit them: `. .../bridges/env.sh`.
# POSIX sh; needs nothing but the shell. Values that are set already are left alone.
if [ -r /run/terok/env ]; then
  while IFS= read -r terok_line || [ -n "$terok_line" ]; do
    terok_name=${terok_line%%=*}
    case $terok_name in '' | *[!A-Za-z0-9_]* | [0-9]*) continue ;; esac
    eval "[ -n \"\${$terok_name+x}\" ]" || { eval "$terok_name=\${terok_line#*=}"; export "${terok_name?}"; }
  done </run/terok/env
  unset terok_line terok_name
fi
[ -S /run/terok/vault.sock ] && [ -z "${TEROK_VAULT_SOCKET-}" ] && export TEROK_VAULT_SOCKET=/run/terok/vault.sock
[ -S /run/terok/vault.sock ] && [ -z "${TEROK_VAULT_LOOPBACK_PORT-}" ] && export TEROK_VAULT_LOOPBACK_PORT=9419
[ -S /run/terok/gate.sock ] && [ -z "${TEROK_GATE_SOCKET-}" ] && export TEROK_GATE_SOCKET=/run/terok/gate.sock
[ -S /run/terok/ssh-agent.sock ] && [ -z "${SSH_AUTH_SOCK-}" ] && export SSH_AUTH_SOCK=/run/terok/ssh-agent.sock
:
