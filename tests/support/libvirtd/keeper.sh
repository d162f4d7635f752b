# The first process of a private libvirtd's namespaces: puts the story's directories over the
# system's, says "ready", and reaps what the namespace's daemons and guests leave. All of them end with it.
# Argument: the story's directory.
dir=$1

for place in run:/run/libvirt lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log/libvirt \
    etc:/etc/libvirt; do
    mkdir -p "${place#*:}" && mount --bind "$dir/${place%%:*}" "${place#*:}" || exit 1
done
echo ready

# A guest that libvirt killed counts as alive until somebody reaps it; a shell that waits does.
sleep infinity &
wait
