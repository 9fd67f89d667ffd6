# How our scripts talk: numbered-by-time steps, background jobs with a log each, failures that say how to go on.
# Sourced, not run.  The caller sets `log_dir` before it starts a job.
# shellcheck shell=bash

started_at=${EPOCHREALTIME/[.,]/}
declare -A job_pid=() job_started=()

# Tenths of a second since $1 (microseconds; default: the start of the script), as "12.3".
elapsed() {
  local tenths=$(((${EPOCHREALTIME/[.,]/} - ${1:-$started_at}) / 100000))
  echo "$((tenths / 10)).$((tenths % 10))"
}

say() { printf '%s\n' "$*"; }
step() { printf '[%6ss] %s\n' "$(elapsed)" "$*"; }

# die WHAT HOW-TO-GO-ON [LOG]: the end of a script that could not do its work.
die() {
  {
    printf '\nFailed: %s\n' "$1"
    if [[ -n ${3:-} && -s $3 ]]; then
      printf '\nThe last lines of %s:\n' "$3"
      tail -n 15 "$3" | sed 's/^/  | /'
    fi
    printf '\n%s\n' "$2"
  } >&2
  exit 1
}

# job NAME COMMAND...: run COMMAND beside us, in a process group of its own, its output in its own log.
job() {
  local name=$1
  shift
  job_started[$name]=${EPOCHREALTIME/[.,]/}
  set -m
  ("$@") >"$log_dir/$name.log" 2>&1 </dev/null &
  job_pid[$name]=$!
  set +m
}

# finish NAME WHAT HOW-TO-GO-ON: wait for a job, then say what is done, or what went wrong.
finish() {
  local name=$1
  [[ -n ${job_pid[$name]:-} ]] || return 0
  if ! wait "${job_pid[$name]}"; then
    unset "job_pid[$name]"
    die "$2" "$3" "$log_dir/$name.log"
  fi
  unset "job_pid[$name]"
  step "$2 (took $(elapsed "${job_started[$name]}")s)"
}

# End all jobs that still run, except one named `packages`: dpkg is not torn away from its work but awaited.
# Returns when the last process of each has cleaned up after itself, at most 20 seconds later.
end_jobs() {
  local name group tries
  for name in "${!job_pid[@]}"; do
    group=${job_pid[$name]}
    unset "job_pid[$name]"
    if [[ $name == packages ]]; then
      wait "$group" 2>/dev/null || true
      continue
    fi
    kill -TERM -- "-$group" 2>/dev/null || continue
    for ((tries = 0; tries < 200; tries++)); do
      kill -0 -- "-$group" 2>/dev/null || break
      sleep 0.1
    done
  done
}

# Run as root: directly, or through sudo.
as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

need_root() {
  ((EUID == 0)) && return
  command -v sudo >/dev/null || die "this needs root, and sudo is not installed." "Run it again as root."
  say "Some steps need root; sudo may ask for your password."
  sudo -v || die "sudo did not let us become root." "Run it again as root, or as a user who may use sudo."
}

# Ask once, on a terminal only; $1 is the question.  Set `assume_yes` to skip it.
confirm() {
  [[ -z ${assume_yes:-} && -t 0 && -t 1 ]] || return 0
  local answer
  read -r -p "$1 [Y/n] " answer
  [[ $answer =~ ^([yY]|[yY][eE][sS]|)$ ]] || die "you said no; nothing was changed." "Run it again when you like."
}
