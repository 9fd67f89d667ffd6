# Which Debian this is, and installing its packages.  Sourced after say.sh and apt.sh, not run.
# shellcheck shell=bash

# Sets debian_version (12 or 13) and debian_release (its code name); refuses any other system.
detect_debian() {
  local id='' pretty='another system'
  debian_version='' debian_release=''
  if [[ -r /etc/os-release ]]; then
    id=$(. /etc/os-release && echo "${ID:-}")
    pretty=$(. /etc/os-release && echo "${PRETTY_NAME:-$id}")
    debian_version=$(. /etc/os-release && echo "${VERSION_ID:-}")
    debian_release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  fi
  if [[ $id != debian || ! $debian_version =~ ^1[23]$ ]]; then
    die "this script installs packages of Debian 12 or 13, but this is $pretty." \
      "IceShelves itself runs wherever Python 3.11 does. Install Incus in your system's own way, then:
  python3 -m venv .venv && .venv/bin/pip install --require-hashes -r requirements.lock && .venv/bin/pip install --no-deps ."
  fi
}

installed() {
  [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]
}

# Those of the packages "$@" that are not installed, one a line.
missing_packages() {
  local package
  for package in "$@"; do
    installed "$package" || echo "$package"
  done
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"
}

# Make the package lists current and mend what an interrupted installation left.
apt_refresh() {
  as_root dpkg --configure -a
  apt_get update
}

# Install "$@"; a name may carry its release, as in incus-base/bookworm-backports.
apt_install() {
  # force-unsafe-io: dpkg's own fsync after each file doubles the time, and a power cut is mended by the next run
  apt_get install -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io "$@"
}

backports_file=/etc/apt/sources.list.d/iceshelves-backports.sources

# Debian 12 has Incus in its backports only.  They are added by the machine's own mirror, unless they are there.
# Backports are never installed unasked: apt gives them a lower priority than the release itself.
add_backports() {
  local mirror keyring
  [[ -z $(apt_mirror "$debian_release-backports") ]] || return 0
  mirror=$(apt_mirror "$debian_release")
  [[ -n $mirror ]] || {
    echo "No apt source of this machine offers $debian_release; add one to /etc/apt/sources.list.d."
    return 1
  }
  keyring=$(apt_keyring)
  {
    echo "# Added by IceShelves' demo for Incus; './demo clean' leaves it, since Incus gets its updates here."
    echo "Types: deb"
    echo "URIs: ${mirror%/}"
    echo "Suites: $debian_release-backports"
    echo "Components: main"
    if [[ -n $keyring ]]; then echo "Signed-By: $keyring"; fi
  } | as_root tee "$backports_file" >/dev/null
  apt_get update -o "Dir::Etc::SourceList=$backports_file" -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0
}
