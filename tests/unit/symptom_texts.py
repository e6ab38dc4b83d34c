"""Texts of a v1 kernel (6.18), a v2 kernel (6.12) and older ones, of what tells of trouble in a pod."""

from __future__ import annotations

BLKIO_BYTES = (
    "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 12288\n254:0 Async 0\n254:0 Discard 77\n"
    "254:0 Total 12365\n"
    "7:1 Read 512\n7:1 Write 0\n7:1 Sync 512\n7:1 Async 0\n7:1 Discard 0\n7:1 Total 512\nTotal 12877\n"
)
BLKIO_OPERATIONS = (
    "254:0 Read 1\n254:0 Write 2\n254:0 Sync 3\n254:0 Async 0\n254:0 Discard 5\n254:0 Total 8\n"
    "7:1 Read 1\n7:1 Write 0\n7:1 Sync 1\n7:1 Async 0\n7:1 Discard 0\n7:1 Total 1\nTotal 9\n"
)
IO_STAT = (
    "259:3 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=77 dios=5\n"
    "8:16 \n7:1 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n"
    "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0 cost.usage=5\n"
)
# In some older kernels a device without counts could leave its name in front of the next.
IO_STAT_JOINED = "8:16 8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n"
PROCESS_IO = (
    "rchar: 31373\nwchar: 67108878\nsyscr: 23\nsyscw: 72\nread_bytes: 4096\nwrite_bytes: 8192\n"
    "cancelled_write_bytes: 0\n"
)
SNMP = (
    "Ip: Forwarding DefaultTTL InReceives\nIp: 2 64 3599657\n"
    "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab "
    "InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\n"
    "Tcp: 1 200 120000 -1 62518 58454 3150 12373 13 3135829 3033209 476 0 16834 0\n"
    "Udp: InDatagrams NoPorts\nUdp: 446920 4538\n"
)
NETSTAT = (
    "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPTimeouts TCPBacklogDrop TCPReqQFullDrop\n"
    "TcpExt: 0 30 42 12308 5 7\nIpExt: InNoRoutes\nIpExt: 0\n"
)
NET_DEV = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls "
    "carrier compressed\n"
    "    lo: 2228760678 3341398    0    0    0     0          0         0 2228760678 3341398    0    0    0"
    "     0       0          0\n"
    "  eth0:1000 10    0    0    0     0          0         0 200 2    0    0    0     0       0          0\n"
    "  eth1:      30       1    0    0    0     0          0         0        4       1    0    0    0     0"
    "       0          0\n"
)
DISKSTATS = (
    "   7       0 loop0 5 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    " 254       0 vda 2929700 180421 55542722 2318244 5832399 5356420 195141408 1661897 0 766356 4439529 "
    "5934050 385 156224320 405271 1296748 54116\n"
    " 254       1 vda1 100 0 800 10 0 0 0 0 0 10 10 0 0 0 0 0 0\n"
    " 253       0 zram0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    " 104       0 cciss/c0d0 1 0 8 2 3 0 8 4 0 5 6\n"
)
MEMORY_V1 = (
    "cache 1\nworkingset_refault_anon 1\nworkingset_refault_file 2\ntotal_cache 4096000\ntotal_rss 4000000\n"
    "total_workingset_refault_anon 3\ntotal_workingset_refault_file 7801458\ntotal_pgmajfault 59898\n"
    "total_inactive_file 1024000\n"
)
MEMORY_V2 = (
    "anon 4000000\nfile 4096000\nkernel 5\ninactive_file 1024000\nworkingset_refault_anon 3\n"
    "workingset_refault_file 4\npgscan 900\npgsteal 800\npgscan_kswapd 100\npgscan_direct 800\npgmajfault 6\n"
)
MEMORY_V2_OLD = (
    "anon 4000000\nfile 4096000\ninactive_file 1024000\nworkingset_refault 9\npgscan 900\npgmajfault 6\n"
)

ALL = (
    BLKIO_BYTES, BLKIO_OPERATIONS, IO_STAT, IO_STAT_JOINED, PROCESS_IO, SNMP, NETSTAT, NET_DEV, DISKSTATS,
    MEMORY_V1, MEMORY_V2, MEMORY_V2_OLD,
)  # fmt: skip
