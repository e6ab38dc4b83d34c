"""Throw-away emulated machines with several NUMA nodes, systemd as pid 1 and any cgroup mode.

`make vm-test` runs the live tests in them; `python -m tests.vm --help` tells what else. No KVM is needed.

  host.py     this machine's tools, errors, what is said      root.py    the Debian root image, made once
  machine.py  what a machine is made of -> QEMU's arguments   kernel.py  its kernel and modules, made once
  boot.py     start it, wait until it takes commands, end it  guest.py   run a command in it
  project.py  this checkout as a guest can install it         suite.py   the live tests, kind by kind
  inside/     what is copied into the guest, and the tests that make sense only there

Disks     A raw ext4 root, opened with snapshot=on: the cached file never changes, many machines share it.
          One ext4 for each kernel with its modules. Ending a machine is ending its QEMU.
Boot      QEMU starts the unpacked kernel with an initramfs of busybox and virtio; then systemd is pid 1.
Commands  4 virtio-serial ports, 4 unix sockets, one command at a time on each. No guest network is needed, so
          a test may shape, break or rename every NIC.
--copy    A folder, which the guest sees as a disk with a tar and unpacks: fast for many small files.
--share   A folder that is live in the guest (9p): fine for big files and results, slow for many small ones.
Network   nicN, on NUMA node N % nodes, has a twin peerN in the guest's network namespace `peer`
          (10.77.N.1 <-> 10.77.N.2) on a hub inside QEMU. No packet leaves the QEMU process.

Invariant: nothing is left behind. A machine is one directory and one process, which dies with the command
that started it, or after its --lifetime.
"""
