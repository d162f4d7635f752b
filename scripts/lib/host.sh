# shellcheck shell=bash
# What this host must have before anything else: packages, Rust, a running libvirt. Sourced,
# never run.

# shellcheck source=scripts/lib/packages.sh
. "$LIB/packages.sh"
# shellcheck source=scripts/lib/libvirt.sh
. "$LIB/libvirt.sh"
