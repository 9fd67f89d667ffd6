# The metadata half of an Incus or LXD image: what it is, and how the settings of an instance reach its guest.
# Sourced, not run.
# shellcheck shell=bash

# write_image_metadata WORKDIR OUT.tar.xz OS RELEASE DESCRIPTION
#
# On creation and copying, the hypervisor renders the templates into a NoCloud seed in the guest.  Each part
# comes from `cloud-init.PART`, else from the older `user.PART`, else it is empty (user-data, vendor-data) or
# DHCP on eth0 (network-config).
write_image_metadata() {
  local work=$1 out=$2 seed=/var/lib/cloud/seed/nocloud-net part default
  mkdir -p "$work/templates"
  cat >"$work/metadata.yaml" <<EOF
architecture: $(uname -m)
creation_date: $(date +%s)
properties:
  architecture: $(dpkg --print-architecture)
  description: $5
  os: $3
  release: $4
  variant: cloud
templates:
  /etc/hostname: {when: [create, copy], template: hostname.tpl}
  $seed/meta-data: {when: [create, copy], template: meta-data.tpl}
EOF
  echo '{{ container.name }}' >"$work/templates/hostname.tpl"
  cat >"$work/templates/meta-data.tpl" <<'EOF'
instance-id: {{ container.name }}
local-hostname: {{ container.name }}
{{ config_get("user.meta-data", "") }}
EOF
  for part in user-data vendor-data network-config; do
    default=$'#cloud-config\n{}'
    if [[ $part == network-config ]]; then default=$'version: 2\nethernets:\n  eth0: {dhcp4: true}'; fi
    echo "  $seed/$part: {when: [create, copy], template: $part.tpl}" >>"$work/metadata.yaml"
    {
      printf '{%% if config_get("cloud-init.%s", "") != "" %%}{{ config_get("cloud-init.%s", "") }}' "$part" "$part"
      printf '{%% elif config_get("user.%s", "") != "" %%}{{ config_get("user.%s", "") }}' "$part" "$part"
      printf '{%% else %%}%s\n{%% endif %%}\n' "$default"
    } >"$work/templates/$part.tpl"
  done
  tar -C "$work" --owner=0 --group=0 -cJf "$out" metadata.yaml templates
}
