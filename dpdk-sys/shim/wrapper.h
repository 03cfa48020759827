/* What bindgen reads and the shim implements. */
#ifndef GANNET_DPDK_WRAPPER_H
#define GANNET_DPDK_WRAPPER_H

#include <stddef.h>
#include <stdint.h>

#include <rte_alarm.h>
#include <rte_bus.h>
#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_interrupts.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_version.h>

/* Receives one piece of log text; not NUL-terminated. */
typedef void (*gannet_log_fn)(const char *text, size_t len);

/* rte_errno is a macro over a thread-local variable. */
int gannet_rte_errno(void);
/* The next segment of a chain, or NULL; the field's offset depends on how DPDK was built. */
struct rte_mbuf *gannet_mbuf_next(const struct rte_mbuf *m);
/* A pool of `size` mbufs with `room` data bytes in the caller's memory, which DPDK maps for no device and no other
 * process; see gannet_private_pool_bytes. On failure, NULL, with rte_errno set. */
struct rte_mempool *gannet_private_pool(const char *name, unsigned int size, unsigned int cache, uint16_t room,
	void *memory, size_t len);
/* The size in bytes of the memory that such a pool needs, which must be aligned to a cache line. */
size_t gannet_private_pool_bytes(unsigned int size, uint16_t room);
/* Passes all DPDK log text to `fn`, on any thread. Returns 0, or -1 if out of memory. */
int gannet_log_capture(gannet_log_fn fn);
/* 1 if the link of the port is up. Since 23.11, the fields of rte_eth_link are in an anonymous union. */
int gannet_link_up(uint16_t port);

/* Bytes of an element of the rings between cores: an mbuf and what is known of it. */
#define GANNET_HANDED_SIZE 24
/* Puts up to `n` elements into a ring that has one producer. Returns how many. Here rather than through the wrappers of
 * bindgen, so that the compiler knows how large elements are. */
unsigned int gannet_handed_enqueue(struct rte_ring *ring, const void *elements, unsigned int n);
/* Takes up to `n` elements out of a ring that has one consumer. Returns how many. */
unsigned int gannet_handed_dequeue(struct rte_ring *ring, void *elements, unsigned int n);


/* Macros that bindgen cannot evaluate itself. */
static const uint64_t GANNET_SIZEOF_MBUF = sizeof(struct rte_mbuf);
static const uint64_t GANNET_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t GANNET_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t GANNET_TX_IP_CKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t GANNET_TX_UDP_CKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t GANNET_RX_IP_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t GANNET_RX_IP_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t GANNET_RX_L4_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t GANNET_RX_L4_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t GANNET_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t GANNET_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t GANNET_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t GANNET_RX_OFFLOAD_VLAN_FILTER = RTE_ETH_RX_OFFLOAD_VLAN_FILTER;
static const uint64_t GANNET_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t GANNET_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t GANNET_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t GANNET_TX_OFFLOAD_MBUF_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
static const uint64_t GANNET_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t GANNET_RSS_UDP = RTE_ETH_RSS_UDP;
static const uint64_t GANNET_RSS_IPV4 = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER;
static const uint64_t GANNET_RSS_IPV6 = RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER | RTE_ETH_RSS_IPV6_EX;
static const uint64_t GANNET_RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t GANNET_RSS_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP | RTE_ETH_RSS_IPV6_UDP_EX;
static const uint32_t GANNET_DEV_INTR_RMV = RTE_ETH_DEV_INTR_RMV;

#endif
