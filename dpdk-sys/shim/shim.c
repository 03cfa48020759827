/* The parts of DPDK that are macros or need C. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#include "wrapper.h"

/* The layout that `mbuf_head` in src/lib.rs mirrors. */
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

/* An object is an mbuf followed by its data, as in rte_pktmbuf_pool_create. */
size_t gannet_private_pool_bytes(unsigned int size, uint16_t room)
{
	struct rte_mempool_objsz object;
	uint32_t one = rte_mempool_calc_obj_size(sizeof(struct rte_mbuf) + room, RTE_MEMPOOL_F_NO_IOVA_CONTIG, &object);

	return (size_t)size * RTE_CACHE_LINE_ROUNDUP(one) + RTE_CACHE_LINE_SIZE;
}

struct rte_mempool *gannet_private_pool(const char *name, unsigned int size, unsigned int cache, uint16_t room,
	void *memory, size_t len)
{
	struct rte_pktmbuf_pool_private sizes = { .mbuf_data_room_size = room };
	struct rte_mempool *pool;

	pool = rte_mempool_create_empty(name, size, sizeof(struct rte_mbuf) + room, cache, sizeof(sizes), SOCKET_ID_ANY,
		RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (pool == NULL)
		return NULL;
	rte_pktmbuf_pool_init(pool, &sizes);
	if (rte_mempool_populate_virt(pool, memory, len, len, NULL, NULL) != (int)size) {
		rte_mempool_free(pool);
		rte_errno = ENOMEM;
		return NULL;
	}
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	return pool;
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

int gannet_link_up(uint16_t port)
{
	struct rte_eth_link link = { 0 };

	return rte_eth_link_get_nowait(port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

unsigned int gannet_handed_enqueue(struct rte_ring *ring, const void *elements, unsigned int n)
{
	return rte_ring_sp_enqueue_burst_elem(ring, elements, GANNET_HANDED_SIZE, n, NULL);
}

unsigned int gannet_handed_dequeue(struct rte_ring *ring, void *elements, unsigned int n)
{
	return rte_ring_sc_dequeue_burst_elem(ring, elements, GANNET_HANDED_SIZE, n, NULL);
}
