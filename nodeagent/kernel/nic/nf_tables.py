"""The kernel's numbers for nf_tables, by their own names; a test compares them with pyroute2's.

They are here because importing pyroute2 for them takes 10 MB in a daemon that must stay small.
(linux/netlink.h, linux/netfilter.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h; the data types
are nft's own, libnftables enum datatypes.)
"""

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_DUMP, NLM_F_CREATE, NLM_F_APPEND = 0x300, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10

NFPROTO_INET, NFPROTO_IPV4, NFPROTO_BRIDGE, NFPROTO_IPV6 = 1, 2, 7, 10

NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE = 0, 1, 2
NFT_MSG_NEWCHAIN = 3
NFT_MSG_NEWRULE, NFT_MSG_GETRULE, NFT_MSG_DELRULE = 6, 7, 8
NFT_MSG_NEWSET = 9
NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = 12, 13, 14
NFT_MSG_GETGEN = 16

NFT_META_PROTOCOL, NFT_META_PRIORITY, NFT_META_NFPROTO, NFT_META_CGROUP = 1, 2, 15, 23

DATA_TYPE_IPADDR, DATA_TYPE_IP6ADDR, DATA_TYPE_CLASSID, DATA_TYPE_CGROUPV2 = 7, 8, 23, 46
