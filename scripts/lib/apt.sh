# What this machine's apt knows: its mirrors and its settings.  Sourced, not run.
# shellcheck shell=bash

# Where the packages of release $1 come from, as this machine's own sources say (in either of apt's two
# formats); nothing is printed when no source names that release.  Needs one `apt-get update` before.
apt_mirror() {
  # shellcheck disable=SC2016  # apt fills these in
  apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v release="$1" '$1 == release && $2 == "main" && !found { print $3; found = 1 }'
}

# The keyring that Debian's archive is signed with, as a `Signed-By` value.
apt_keyring() {
  local file
  for file in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
    if [[ -e $file ]]; then echo "$file"; return; fi
  done
}

# The settings with which this machine reaches its mirrors (proxy, retries, accepted dates), as apt.conf.
apt_settings() {
  apt-config dump --no-empty |
    grep -E '^Acquire::(https?::(Proxy|Timeout|Verify|CaInfo)|Check-Valid-Until|Check-Date|Retries)' |
    grep -v 'Proxy-Auto-Detect' || true
}
