#!/usr/bin/env bash
# A client of LMX in a few lines of bash, with nothing but bash: its /dev/tcp and the line
# protocol of live-mutex.
#
#     live_mutex.sh KEY COMMAND [ARGS...]
#
# waits for the lock, runs the command with LMX_TOKEN in its environment, and exits as the
# command did. The lock ends with this process, however that ends. LMX_HOST and LMX_PORT say
# where the broker is. (`lmx run` does the same and more: it renews, forwards signals, and
# stops the command if the lock is lost.)
set -euo pipefail

(($# >= 2)) || { echo "usage: $0 KEY COMMAND [ARGS...]" >&2; exit 64; }
key=$1
shift
# What JSON wants escaped: backslash first, then the quote. Other keys than one line of
# printable text are refused here.
[[ $key =~ [[:cntrl:]] ]] && { echo "$0: the key has a control character" >&2; exit 64; }
key=${key//\\/\\\\}
key=${key//\"/\\\"}

exec {broker}<>"/dev/tcp/${LMX_HOST:-127.0.0.1}/${LMX_PORT:-6970}" ||
  { echo "$0: no broker at ${LMX_HOST:-127.0.0.1}:${LMX_PORT:-6970}" >&2; exit 69; }
id="$$-$RANDOM$RANDOM$RANDOM$RANDOM"

printf '{"type":"lock","uuid":"%s","key":"%s","ttl":null,"pid":%d}\n' "$id" "$key" "$$" >&"$broker"
while read -r line <&"$broker"; do
  [[ $line == *"\"uuid\":\"$id\""* ]] && break
done
if [[ $line != *'"acquired":true'* ]]; then
  echo "$0: not locked: ${line:-the connection was closed}" >&2
  exit 69
fi
[[ $line =~ \"fencingToken\":([0-9]+) ]]
export LMX_TOKEN=${BASH_REMATCH[1]}

status=0
# Without the connection: a child that outlives this script must not keep the lock.
(exec {broker}>&-; "$@") || status=$?

printf '{"type":"unlock","uuid":"%s-end","_uuid":"%s","key":"%s"}\n' "$id" "$id" "$key" >&"$broker"
read -r line <&"$broker" || true
[[ $line == *'"unlocked":true'* ]] || echo "$0: the lock had been lost: $line" >&2
exit "$status"
