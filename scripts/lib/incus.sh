# This machine's own Incus: is it there, does it answer, is it set up.  Sourced after say.sh, not run.
#
# Everything that is made here is written to the file $made, one "kind name" a line, so that it can be taken
# away again, and so that nothing else ever is.  What somebody set up before us is used as it is.
# shellcheck shell=bash

incus_dir=${INCUS_DIR:-/var/lib/incus}
incus_socket=$incus_dir/unix.socket
incus_log=/var/log/incus/demo.log

incus_answers() {
  [[ -S $incus_socket ]] &&
    as_root curl --silent --fail --max-time 5 --output /dev/null --unix-socket "$incus_socket" http://incus/1.0
}

# With --force-local a first call does not print advice for newcomers into our logs.
incus_cli() { as_root env INCUS_DIR="$incus_dir" incus --quiet --force-local "$@"; }

incus_program() {
  local path
  for path in /usr/libexec/incus/incusd /opt/incus/bin/incusd /usr/bin/incusd /usr/sbin/incusd; do
    if [[ -x $path ]]; then echo "$path"; return; fi
  done
  return 1
}

systemd_runs() { [[ -d /run/systemd/system ]]; }

# `newuidmap` gives containers the ids that these files allow root to hand out.  A good line of the user's stays.
allow_ids() {
  local file
  for file in /etc/subuid /etc/subgid; do
    if ! awk -F: '$1 == "root" && $3 >= 65536 { found = 1 } END { exit !found }' "$file" 2>/dev/null; then
      echo root:1000000:1000000000 | as_root tee -a "$file" >/dev/null
    fi
    if (($(grep -c '^root:' "$file") > 1)); then
      echo "$file has more than one line for root; Incus cannot start containers then. Keep one of them."
      return 1
    fi
  done
}

# keep_ids_of_root COMMAND...: run it, then take away what it added for root in these files.  LXD's package gives
# root one more range, whatever is there, and with two Incus can no longer start a container.
keep_ids_of_root() {
  local file line code=0 mended=''
  local -A before
  allow_ids || return
  for file in /etc/subuid /etc/subgid; do before[$file]=$(grep '^root:' "$file"); done
  "$@" || code=$?
  for file in "${!before[@]}"; do
    while read -r line; do
      as_root sed -i "/^$line\$/d" "$file"
      mended=yes
    done < <(grep '^root:' "$file" | grep -vxF "${before[$file]}")
  done
  if [[ -n $mended ]] && systemd_runs; then as_root systemctl try-restart lxd.service; fi
  return "$code"
}

# Incus' package raises the number of inotify instances, which twenty guests use up; only systemd reads that.
allow_many_guests() {
  local setting=/proc/sys/fs/inotify/max_user_instances
  if (($(<"$setting") < 1024)); then echo 1024 | as_root tee "$setting" >/dev/null; fi
}

# Start the daemon, by systemd where that runs.
start_incus() {
  local program
  incus_answers && return
  allow_ids || return
  if systemd_runs; then
    as_root systemctl start incus.socket incus.service
  else
    program=$(incus_program)
    allow_many_guests
    as_root mkdir -p "${incus_log%/*}"
    as_root env INCUS_DIR="$incus_dir" PATH="/usr/libexec/incus:$PATH" \
      setsid --fork "$program" --group incus-admin --logfile "$incus_log" </dev/null >/dev/null 2>&1
    echo "daemon $program" >>"$made"
  fi
  for _ in {1..300}; do
    incus_answers && return
    sleep 0.1
  done
  echo "Incus was started but did not answer within 30 seconds."
  return 1
}

# Does the default profile have a root disk, a network card?  By what they are: their names are free.
default_profile_has_disk() { incus_cli profile show default | grep -qx '    path: /'; }
default_profile_has_card() { incus_cli profile show default | grep -qx '    type: nic'; }

free_bridge_name() {
  local number
  for number in {0..99}; do
    if [[ ! -e /sys/class/net/incusbr$number ]]; then echo "incusbr$number"; return; fi
  done
}

# A /24 that no route of this machine leads to, but for the default one.  (Incus' own search pings each
# candidate, and finds none where a gateway answers for every address.)
free_bridge_address() {
  local number
  for number in {1..254}; do
    if ! ip -4 route show match "10.166.$number.1" | grep -qv '^default'; then
      echo "10.166.$number.1/24"
      return
    fi
  done
  echo "No network below 10.166.0.0/16 is free for the bridge of Incus."
  return 1
}

# Give an Incus that nobody set up a pool, a bridge and a default profile; leave any other one alone.
set_up_incus() {
  local pools bridge address
  pools=$(incus_cli storage list --format csv)
  if default_profile_has_disk && default_profile_has_card; then return; fi
  if [[ -n $pools ]] && ! grep -qs '^pool ' "$made"; then
    echo "This Incus has storage, but its default profile has no root disk or no network card, so it is not"
    echo "clear where an instance should go. Add them, for example:"
    echo "  incus profile device add default root disk path=/ pool=${pools%%,*}"
    echo "  incus profile device add default eth0 nic network=YOUR-NETWORK"
    return 1
  fi
  if [[ -z $pools ]]; then
    echo "pool default" >>"$made"
    incus_cli storage create default dir
  fi
  if ! default_profile_has_disk; then
    echo "device root" >>"$made"
    incus_cli profile device add default root disk path=/ pool=default
  fi
  if ! default_profile_has_card; then
    bridge=$(sed -n 's/^network //p' "$made" | tail -n 1)
    if [[ -z $bridge ]] || ! incus_cli network show "$bridge" >/dev/null 2>&1; then
      bridge=$(free_bridge_name)
      address=$(free_bridge_address)
      echo "network $bridge" >>"$made"
      # IPv4 only: many machines have IPv6 switched off, and the bridge would then fail to start
      incus_cli network create "$bridge" ipv4.address="$address" ipv4.nat=true ipv6.address=none
    fi
    echo "device eth0" >>"$made"
    incus_cli profile device add default eth0 nic name=eth0 network="$bridge"
  fi
}

# incus_remove KIND DELETE... : delete an object; when it is still there afterwards, something else uses it.
incus_remove() {
  local what=$1 show
  shift
  show=("${@/#delete/show}")
  incus_cli "$@" >/dev/null 2>&1 || ! incus_cli "${show[@]}" >/dev/null 2>&1 ||
    say "Left in Incus, because something else uses it: $what ${*: -1}"
}

# Take away what $made lists, last first.  Nothing is pulled from under an instance that is not the demo's.
unmake_incus() {
  local kind name shared=''
  [[ -s $made ]] || return 0
  incus_cli profile show default | grep -qx 'used_by: \[\]' || shared=yes
  while read -r kind name; do
    case $kind in
      image) incus_remove "$kind" image delete "$name" ;;
      device) [[ -n $shared ]] || incus_cli profile device remove default "$name" >/dev/null 2>&1 || true ;;
      network) incus_remove "$kind" network delete "$name" ;;
      pool) incus_remove "$kind" storage delete "$name" ;;
    esac
  done < <(tac "$made" | awk '!seen[$0]++')
}

# Stop the daemon if it is one that we started; its containers are stopped properly by it.
stop_incus() {
  grep -qs '^daemon ' "$made" || return 0
  if incus_answers; then incus_cli admin shutdown --timeout 60; fi
  sed -i '/^daemon /d' "$made"
}
