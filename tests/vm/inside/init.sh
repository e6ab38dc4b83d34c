#!/bin/busybox sh
# The initramfs: load the modules named in /order, wait for both disks, hand over to systemd.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
for module in $($b cat /order); do $b insmod "/$module"; done
tries=0
until [ -b /dev/vda ] && [ -b /dev/vdb ] || [ $tries = 200 ]; do
    tries=$((tries + 1))
    $b usleep 50000
done
$b mount -t ext4 -o noatime /dev/vda /root && $b mount -t ext4 -o ro /dev/vdb /root/usr/lib/modules
$b mount --move /dev /root/dev
$b umount /proc
exec $b switch_root /root /sbin/init
