/* The few things in DPDK that are macros or need C. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#include "wrapper.h"

/* The layout that `mbuf_head` in src/lib.rs repeats. */
#define AT(field, offset) \
	_Static_assert(offsetof(struct rte_mbuf, field) == (offset), "rte_mbuf." #field " moved: adapt mbuf_head")
AT(buf_addr, 0);
AT(data_off, 16);
AT(refcnt, 18);
AT(nb_segs, 20);
AT(port, 22);
AT(ol_flags, 24);
AT(packet_type, 32);
AT(pkt_len, 36);
AT(data_len, 40);
AT(vlan_tci, 42);
AT(hash.rss, 44);
AT(vlan_tci_outer, 52);
AT(buf_len, 54);
AT(pool, 56);
AT(tx_offload, 72);
_Static_assert(RTE_MBUF_L2_LEN_BITS == 7, "rte_mbuf.l2_len changed: adapt TX_OFFLOAD_L3_SHIFT");

int gannet_rte_errno(void)
{
	return rte_errno;
}

struct rte_mbuf *gannet_mbuf_next(const struct rte_mbuf *m)
{
	return m->next;
}

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	((gannet_log_fn)cookie)(text, len);
	return (ssize_t)len;
}

int gannet_log_capture(gannet_log_fn fn)
{
	cookie_io_functions_t io = { .write = log_write };
	FILE *stream = fopencookie((void *)fn, "w", io);

	return stream == NULL ? -1 : rte_openlog_stream(stream);
}
