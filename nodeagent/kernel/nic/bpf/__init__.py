"""eBPF at the NIC, without a compiler: programs as text (classify, edt), assembled and loaded by bpf(2).

    marks.BpfMarks   classify at clsact egress: skb->priority by the socket's cgroup and by address
    pacing.Edt       edt behind it: departure times, which somebody's fq keeps

The filters hold the programs and these their maps: what is attached stays when the agent dies, and the next
one finds it by its name. Nothing is pinned, nothing is remembered outside of the kernel.
Invariant: both programs answer TC_ACT_UNSPEC (or drop), so filters of somebody else still run.
"""
