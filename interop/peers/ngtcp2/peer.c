// hq-interop over ngtcp2 with GnuTLS, which logs secrets to SSLKEYLOGFILE by itself. See ../README.md.

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

enum { WINDOW = 16 << 20, ENOUGH = 50000, REFUSED = 0x104, CIDLEN = 8, MAX_CONNS = 64, MAX_PATHS = 1024, DATAGRAMS = 200 };

static const char *testcase;
static bool is_server;
static const char *alpn = "hq-interop";
static size_t payload_limit = 1452;
static gnutls_certificate_credentials_t credentials;
static gnutls_datum_t ticket_key;
static uint8_t secret[32];
static char server_ip[INET6_ADDRSTRLEN + 2];

struct stream {
    struct stream *next;
    int64_t id;
    char *path;
    uint8_t *in;
    size_t in_len, in_cap;
    uint8_t *out;
    size_t out_len, out_off;
    bool fin_sent, stopped, done, good;
};

struct conn {
    ngtcp2_conn *conn;
    gnutls_session_t tls;
    ngtcp2_crypto_conn_ref ref;
    int fd;
    struct sockaddr_storage local, remote;
    socklen_t local_len, remote_len;
    struct stream *streams;
    ngtcp2_cid ids[16];
    size_t id_count;
    bool closed, updated, failed;
    char **paths;
    size_t path_count, next_path, finished;
    gnutls_datum_t ticket;
    // Datagrams to be sent, from `first` to `next`, modulo their number.
    struct datagram *datagrams;
    size_t first, next, sent, returned;
};

struct datagram {
    uint8_t data[1200];
    size_t len;
};

static const char *var(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static void die(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

static ngtcp2_tstamp now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (ngtcp2_tstamp)ts.tv_sec * NGTCP2_SECONDS + (ngtcp2_tstamp)ts.tv_nsec;
}

static void random_bytes(uint8_t *dest, size_t len, const ngtcp2_rand_ctx *ctx) {
    gnutls_rnd(GNUTLS_RND_RANDOM, dest, len);
}

static ngtcp2_conn *get_conn(ngtcp2_crypto_conn_ref *ref) { return ((struct conn *)ref->user_data)->conn; }

static struct stream *find(struct conn *c, int64_t id) {
    for (struct stream *s = c->streams; s; s = s->next)
        if (s->id == id) return s;
    return NULL;
}

static struct stream *add(struct conn *c, int64_t id) {
    struct stream *s = calloc(1, sizeof *s);
    s->id = id;
    s->next = c->streams;
    c->streams = s;
    return s;
}

static void finish(struct conn *c, struct stream *s, bool good) {
    if (s->done) return;
    s->done = true;
    s->good = good;
    c->finished++;
    if (!good) c->failed = true;
}

static void write_file(struct stream *s) {
    char path[PATH_MAX];
    const char *name = strrchr(s->path, '/') + 1;
    snprintf(path, sizeof path, "%s/%s", var("DOWNLOADS", "."), name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(s->in, 1, s->in_len, file) != s->in_len || fclose(file)) die(path, strerror(errno));
}

static void answer(struct conn *c, struct stream *s) {
    char line[512], path[PATH_MAX];
    size_t len = s->in_len < sizeof line - 1 ? s->in_len : sizeof line - 1;
    memcpy(line, s->in, len);
    line[len] = 0;
    line[strcspn(line, "\r\n")] = 0;
    struct stat st;
    FILE *file = NULL;
    if (!strncmp(line, "GET /", 5) && !strstr(line, "..")) {
        snprintf(path, sizeof path, "%s/%s", var("WWW", "."), line + 5);
        if (!stat(path, &st) && S_ISREG(st.st_mode)) file = fopen(path, "rb");
    }
    if (!file) {
        ngtcp2_conn_shutdown_stream_write(c->conn, s->id, REFUSED);
        s->fin_sent = true;
        return;
    }
    s->out = malloc((size_t)st.st_size + 1);
    s->out_len = fread(s->out, 1, (size_t)st.st_size, file);
    fclose(file);
}

static int on_data(ngtcp2_conn *conn, uint32_t flags, int64_t id, uint64_t offset, const uint8_t *data, size_t len,
                   void *user, void *stream_user) {
    struct conn *c = user;
    struct stream *s = find(c, id);
    ngtcp2_conn_extend_max_offset(conn, len);
    if (!s) s = add(c, id);
    if (s->stopped) return 0;
    ngtcp2_conn_extend_max_stream_offset(conn, id, len);
    if (s->in_len + len > s->in_cap) {
        s->in_cap = (s->in_len + len) * 2;
        s->in = realloc(s->in, s->in_cap);
    }
    if (len) memcpy(s->in + s->in_len, data, len);
    s->in_len += len;
    bool fin = flags & NGTCP2_STREAM_DATA_FLAG_FIN;
    if (is_server) {
        if (fin) answer(c, s);
        return 0;
    }
    if (!strcmp(testcase, "stopsending") && id == 0 && s->in_len >= ENOUGH) {
        ngtcp2_conn_shutdown_stream_read(conn, id, 0x10);
        s->stopped = true;
        finish(c, s, true);
    } else if (fin && s->path) {
        write_file(s);
        finish(c, s, true);
    }
    return 0;
}

static int on_reset(ngtcp2_conn *conn, int64_t id, uint64_t final_size, uint64_t code, void *user, void *stream_user) {
    struct conn *c = user;
    struct stream *s = find(c, id);
    if (!is_server && s && !s->stopped) {
        printf("failed: reset %llu\n", (unsigned long long)code);
        finish(c, s, false);
    }
    return 0;
}

static int on_close(ngtcp2_conn *conn, uint32_t flags, int64_t id, uint64_t code, void *user, void *stream_user) {
    struct conn *c = user;
    for (struct stream **at = &c->streams; *at; at = &(*at)->next) {
        struct stream *s = *at;
        if (s->id != id) continue;
        if (!is_server) finish(c, s, false);
        *at = s->next;
        free(s->in);
        free(s->out);
        free(s);
        break;
    }
    if (is_server) ngtcp2_conn_extend_max_streams_bidi(conn, 1);
    return 0;
}

static int on_new_id(ngtcp2_conn *conn, ngtcp2_cid *cid, uint8_t *token, size_t len, void *user) {
    struct conn *c = user;
    cid->datalen = len;
    gnutls_rnd(GNUTLS_RND_RANDOM, cid->data, len);
    if (ngtcp2_crypto_generate_stateless_reset_token(token, secret, sizeof secret, cid)) return NGTCP2_ERR_CALLBACK_FAILURE;
    c->ids[c->id_count++ % 16] = *cid;
    return 0;
}

static void queue_datagram(struct conn *c, const uint8_t *data, size_t len) {
    if (!c->datagrams) c->datagrams = calloc(DATAGRAMS, sizeof *c->datagrams);
    if (c->next - c->first == DATAGRAMS || len > sizeof c->datagrams->data) return;  // As if it was lost.
    struct datagram *d = &c->datagrams[c->next++ % DATAGRAMS];
    memcpy(d->data, data, len);
    d->len = len;
}

// Servers send datagrams back.
static int on_datagram(ngtcp2_conn *conn, uint32_t flags, const uint8_t *data, size_t len, void *user) {
    struct conn *c = user;
    if (is_server) queue_datagram(c, data, len);
    else c->returned++;
    return 0;
}

static const ngtcp2_callbacks callbacks = {
    .client_initial = ngtcp2_crypto_client_initial_cb,
    .recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
    .recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb,
    .encrypt = ngtcp2_crypto_encrypt_cb,
    .decrypt = ngtcp2_crypto_decrypt_cb,
    .hp_mask = ngtcp2_crypto_hp_mask_cb,
    .recv_retry = ngtcp2_crypto_recv_retry_cb,
    .rand = random_bytes,
    .get_new_connection_id = on_new_id,
    .update_key = ngtcp2_crypto_update_key_cb,
    .delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb,
    .delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb,
    .get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,
    .version_negotiation = ngtcp2_crypto_version_negotiation_cb,
    .recv_stream_data = on_data,
    .recv_datagram = on_datagram,
    .stream_reset = on_reset,
    .stream_close = on_close,
};

static void make_tls(struct conn *c) {
    char priority[256];
    snprintf(priority, sizeof priority,
             "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:%s:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:%%DISABLE_TLS13_COMPAT_MODE",
             strcmp(testcase, "chacha20") ? "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305" : "+CHACHA20-POLY1305");
    if (gnutls_init(&c->tls, (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NO_END_OF_EARLY_DATA) ||
        gnutls_priority_set_direct(c->tls, priority, NULL) ||
        gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, credentials))
        die("TLS", "cannot be set up");
    if ((is_server ? ngtcp2_crypto_gnutls_configure_server_session(c->tls)
                   : ngtcp2_crypto_gnutls_configure_client_session(c->tls)))
        die("TLS", "cannot be configured for QUIC");
    c->ref = (ngtcp2_crypto_conn_ref){get_conn, c};
    gnutls_session_set_ptr(c->tls, &c->ref);
    gnutls_datum_t protocol = {(unsigned char *)alpn, (unsigned)strlen(alpn)};
    gnutls_alpn_set_protocols(c->tls, &protocol, 1, GNUTLS_ALPN_MANDATORY);
    if (is_server) gnutls_session_ticket_enable_server(c->tls, &ticket_key);
    else gnutls_session_set_verify_cert(c->tls, server_ip, 0);
}

static FILE *qlog;

static void on_qlog(void *user, uint32_t flags, const void *data, size_t len) {
    if (qlog) {
        fwrite(data, 1, len, qlog);
        if (flags & NGTCP2_QLOG_WRITE_FLAG_FIN) fflush(qlog);
    }
}

static void settings_for(ngtcp2_settings *settings, ngtcp2_transport_params *params) {
    ngtcp2_settings_default(settings);
    settings->initial_ts = now();
    settings->max_tx_udp_payload_size = payload_limit;
    const char *dir = getenv("QLOGDIR");
    if (dir) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%llu.qlog", dir, (unsigned long long)settings->initial_ts);
        qlog = fopen(path, "wb");
        settings->qlog.write = on_qlog;
    }
    ngtcp2_transport_params_default(params);
    params->initial_max_stream_data_bidi_local = WINDOW;
    params->initial_max_stream_data_bidi_remote = WINDOW;
    params->initial_max_data = WINDOW;
    params->initial_max_streams_bidi = 100;
    params->max_idle_timeout = 30 * NGTCP2_SECONDS;
    params->active_connection_id_limit = 7;
    if (!strcmp(testcase, "datagrams")) params->max_datagram_frame_size = 65535;
    if (!strcmp(testcase, "delayedacks")) params->max_ack_delay = 200 * NGTCP2_MILLISECONDS;
}

static void send_datagram(struct conn *c, const ngtcp2_path *path, const uint8_t *data, size_t len) {
    while (sendto(c->fd, data, len, 0, path->remote.addr, path->remote.addrlen) < 0) {
        if (errno == EAGAIN) usleep(200);
        else if (errno != EINTR) return;  // As if it was lost.
    }
}

static void close_conn(struct conn *c, const ngtcp2_connection_close_error *error) {
    if (c->closed) return;
    uint8_t out[1500];
    ngtcp2_path_storage ps;
    ngtcp2_path_storage_zero(&ps);
    ngtcp2_ssize n = ngtcp2_conn_write_connection_close(c->conn, &ps.path, NULL, out, 1200, error, now());
    if (n > 0) send_datagram(c, &ps.path, out, (size_t)n);
    c->closed = true;
}

static void fail(struct conn *c, int error) {
    fprintf(stderr, "connection: %s\n", ngtcp2_strerror(error));
    ngtcp2_connection_close_error ccerr;
    ngtcp2_connection_close_error_default(&ccerr);
    if (error == NGTCP2_ERR_CRYPTO)
        ngtcp2_connection_close_error_set_transport_error_tls_alert(&ccerr, ngtcp2_conn_get_tls_alert(c->conn), NULL, 0);
    else
        ngtcp2_connection_close_error_set_transport_error_liberr(&ccerr, error, NULL, 0);
    if (error == NGTCP2_ERR_DRAINING || error == NGTCP2_ERR_IDLE_CLOSE || error == NGTCP2_ERR_DROP_CONN) c->closed = true;
    close_conn(c, &ccerr);
    c->failed = true;
}

// Sends what there is to send.
static void flush(struct conn *c) {
    uint8_t out[65536];
    while (!c->closed && c->first != c->next && ngtcp2_conn_get_handshake_completed(c->conn)) {
        struct datagram *d = &c->datagrams[c->first % DATAGRAMS];
        ngtcp2_path_storage ps;
        ngtcp2_path_storage_zero(&ps);
        ngtcp2_vec vec = {d->data, d->len};
        int taken = 0;
        ngtcp2_ssize n = ngtcp2_conn_writev_datagram(c->conn, &ps.path, NULL, out, payload_limit, &taken,
                                                     NGTCP2_WRITE_DATAGRAM_FLAG_NONE, 0, &vec, 1, now());
        if (taken || n == NGTCP2_ERR_INVALID_ARGUMENT) c->first++;  // It is too long for the peer otherwise.
        if (n == NGTCP2_ERR_INVALID_ARGUMENT) continue;
        if (n < 0) return fail(c, (int)n);
        if (n == 0) break;
        send_datagram(c, &ps.path, out, (size_t)n);
    }
    while (!c->closed) {
        struct stream *s = c->streams;
        while (s && (s->fin_sent || !s->out || s->out_off > s->out_len)) s = s->next;
        ngtcp2_path_storage ps;
        ngtcp2_path_storage_zero(&ps);
        ngtcp2_vec vec = {0};
        int64_t id = -1;
        uint32_t flags = NGTCP2_WRITE_STREAM_FLAG_MORE;
        if (s) {
            id = s->id;
            vec.base = s->out + s->out_off;
            vec.len = s->out_len - s->out_off;
            flags |= NGTCP2_WRITE_STREAM_FLAG_FIN;
        }
        ngtcp2_ssize taken = -1;
        ngtcp2_ssize n = ngtcp2_conn_writev_stream(c->conn, &ps.path, NULL, out, payload_limit, &taken, flags, id, &vec,
                                                   s ? 1 : 0, now());
        if (s && taken >= 0) {
            s->out_off += (size_t)taken;
            if (s->out_off == s->out_len) s->fin_sent = true;
        }
        if (n == NGTCP2_ERR_WRITE_MORE) continue;
        if (n == NGTCP2_ERR_STREAM_DATA_BLOCKED || n == NGTCP2_ERR_STREAM_SHUT_WR || n == NGTCP2_ERR_STREAM_NOT_FOUND) {
            // The window never binds in these tests, so the stream is over.
            if (n != NGTCP2_ERR_STREAM_DATA_BLOCKED) s->fin_sent = true;
            else {
                n = ngtcp2_conn_writev_stream(c->conn, &ps.path, NULL, out, payload_limit, NULL, 0, -1, NULL, 0, now());
                if (n <= 0) break;
                send_datagram(c, &ps.path, out, (size_t)n);
            }
            continue;
        }
        if (n < 0) return fail(c, (int)n);
        if (n == 0) break;
        send_datagram(c, &ps.path, out, (size_t)n);
    }
    if (!c->closed) ngtcp2_conn_update_pkt_tx_time(c->conn, now());
}

// Asks the client for a token that proves its address.
static void send_retry(int fd, const struct sockaddr *remote, socklen_t remote_len, const uint8_t *data, size_t len) {
    ngtcp2_pkt_hd hd;
    if (ngtcp2_accept(&hd, data, len)) return;
    uint8_t token[NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN], out[1500];
    ngtcp2_cid scid = {.datalen = 18};
    gnutls_rnd(GNUTLS_RND_RANDOM, scid.data, scid.datalen);
    ngtcp2_ssize n = ngtcp2_crypto_generate_retry_token(token, secret, sizeof secret, hd.version,
                                                        (const ngtcp2_sockaddr *)remote, remote_len, &scid, &hd.dcid, now());
    if (n < 0) return;
    n = ngtcp2_crypto_write_retry(out, 1200, hd.version, &hd.scid, &scid, &hd.dcid, token, (size_t)n);
    if (n > 0) sendto(fd, out, (size_t)n, 0, remote, remote_len);
}

// Returns false if a server shall forget the connection.
static bool receive(struct conn *c, const struct sockaddr *remote, socklen_t remote_len, const uint8_t *data, size_t len) {
    ngtcp2_path path = {
        .local = {(ngtcp2_sockaddr *)&c->local, c->local_len},
        .remote = {(ngtcp2_sockaddr *)remote, remote_len},
    };
    ngtcp2_pkt_info pi = {0};
    int error = ngtcp2_conn_read_pkt(c->conn, &path, &pi, data, len, now());
    if (is_server && (error == NGTCP2_ERR_RETRY || error == NGTCP2_ERR_DROP_CONN)) {
        if (error == NGTCP2_ERR_RETRY) send_retry(c->fd, remote, remote_len, data, len);
        return false;
    }
    if (error) fail(c, error);
    return true;
}

static socklen_t parse(const char *text, struct sockaddr_storage *to) {
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host) die(text, "is no address");
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    memset(to, 0, sizeof *to);
    if (*host == '[') {
        struct sockaddr_in6 *v6 = (void *)to;
        host[strlen(host) - 1] = 0;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)atoi(colon + 1));
        if (inet_pton(AF_INET6, host + 1, &v6->sin6_addr) != 1) die(text, "is no address");
        if (!is_server) snprintf(server_ip, sizeof server_ip, "%s", host + 1);
        return sizeof *v6;
    }
    struct sockaddr_in *v4 = (void *)to;
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &v4->sin_addr) != 1) die(text, "is no address");
    if (!is_server) snprintf(server_ip, sizeof server_ip, "%s", host);
    return sizeof *v4;
}

static int wait_for(int fd, ngtcp2_tstamp until) {
    ngtcp2_tstamp t = now();
    ngtcp2_duration left = until <= t ? 0 : until - t;
    if (left > NGTCP2_SECONDS) left = NGTCP2_SECONDS;
    struct timespec ts = {(time_t)(left / NGTCP2_SECONDS), (long)(left % NGTCP2_SECONDS)};
    struct pollfd pfd = {fd, POLLIN, 0};
    return ppoll(&pfd, 1, &ts, NULL);
}

static int open_socket(int family) {
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (fd < 0) die("socket", strerror(errno));
    int size = 4 << 20, dont = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_DONTFRAG, &dont, sizeof dont);
    else {
        dont = IP_PMTUDISC_PROBE;
        setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &dont, sizeof dont);
    }
    return fd;
}

static struct conn *conns[MAX_CONNS];
static size_t conn_count;

static struct conn *owner(const uint8_t *dcid, size_t len) {
    for (size_t i = 0; i < conn_count; i++)
        for (size_t j = 0; j < conns[i]->id_count && j < 16; j++)
            if (conns[i]->ids[j].datalen == len && !memcmp(conns[i]->ids[j].data, dcid, len)) return conns[i];
    return NULL;
}

static struct conn *accept_conn(int fd, const struct sockaddr_storage *local, socklen_t local_len,
                                const struct sockaddr_storage *remote, socklen_t remote_len, const uint8_t *data,
                                size_t len) {
    ngtcp2_pkt_hd hd;
    if (ngtcp2_accept(&hd, data, len) || conn_count == MAX_CONNS) return NULL;
    ngtcp2_cid odcid = hd.dcid;
    bool retried = hd.token.len &&
                   !ngtcp2_crypto_verify_retry_token(&odcid, hd.token.base, hd.token.len, secret, sizeof secret, hd.version,
                                                     (const ngtcp2_sockaddr *)remote, remote_len, &hd.dcid,
                                                     30 * NGTCP2_SECONDS, now());
    if (!retried && !strcmp(testcase, "retry")) {
        send_retry(fd, (const struct sockaddr *)remote, remote_len, data, len);
        return NULL;
    }
    struct conn *c = calloc(1, sizeof *c);
    c->fd = fd;
    c->local = *local;
    c->local_len = local_len;
    make_tls(c);
    ngtcp2_settings settings;
    ngtcp2_transport_params params;
    settings_for(&settings, &params);
    params.original_dcid = odcid;
    if (retried) {
        params.retry_scid_present = 1;
        params.retry_scid = hd.dcid;
        settings.token = hd.token;
    }
    ngtcp2_cid scid = {.datalen = CIDLEN};
    gnutls_rnd(GNUTLS_RND_RANDOM, scid.data, scid.datalen);
    params.stateless_reset_token_present = 1;
    ngtcp2_crypto_generate_stateless_reset_token(params.stateless_reset_token, secret, sizeof secret, &scid);
    ngtcp2_path path = {
        .local = {(ngtcp2_sockaddr *)&c->local, c->local_len},
        .remote = {(ngtcp2_sockaddr *)remote, remote_len},
    };
    if (ngtcp2_conn_server_new(&c->conn, &hd.scid, &scid, &path, hd.version, &callbacks, &settings, &params, NULL, c))
        die("connection", "cannot be made");
    ngtcp2_conn_set_tls_native_handle(c->conn, c->tls);
    c->ids[c->id_count++] = scid;
    c->ids[c->id_count++] = hd.dcid;
    conns[conn_count++] = c;
    return c;
}

// Forgets a connection that its first packet has not begun: it was damaged, or the second half of the ClientHello came
// first. In the latter case, ngtcp2 keeps nothing before the client has proved its address, which has a Retry packet by now.
static void forget(struct conn *c) {
    for (size_t i = 0; i < conn_count; i++)
        if (conns[i] == c) conns[i] = conns[--conn_count];
    ngtcp2_conn_del(c->conn);
    gnutls_deinit(c->tls);
    free(c);
}

static _Noreturn void serve(void) {
    struct sockaddr_storage local, remote;
    socklen_t local_len = parse(var("LISTEN", "0.0.0.0:4433"), &local), remote_len;
    int fd = open_socket(local.ss_family);
    if (bind(fd, (struct sockaddr *)&local, local_len)) die("bind", strerror(errno));
    if (gnutls_certificate_set_x509_key_file(credentials, var("CERT", ""), var("KEY", ""), GNUTLS_X509_FMT_PEM) < 0)
        die("certificate", "cannot be read");
    gnutls_session_ticket_key_generate(&ticket_key);
    puts("ready");
    uint8_t data[65536];
    for (;;) {
        ngtcp2_tstamp next = now() + NGTCP2_SECONDS;
        for (size_t i = 0; i < conn_count; i++)
            if (!conns[i]->closed) {
                ngtcp2_tstamp at = ngtcp2_conn_get_expiry(conns[i]->conn);
                if (at < next) next = at;
            }
        wait_for(fd, next);
        for (int budget = 0; budget < 64; budget++) {
            remote_len = sizeof remote;
            ssize_t n = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&remote, &remote_len);
            if (n < 0) break;
            ngtcp2_version_cid vc;
            int error = ngtcp2_pkt_decode_version_cid(&vc, data, (size_t)n, CIDLEN);
            if (error == NGTCP2_ERR_VERSION_NEGOTIATION) {
                uint8_t out[256];
                const uint32_t versions[] = {NGTCP2_PROTO_VER_V1};
                ngtcp2_ssize len = ngtcp2_pkt_write_version_negotiation(out, sizeof out, 0x55, vc.scid, vc.scidlen,
                                                                       vc.dcid, vc.dcidlen, versions, 1);
                if (len > 0) sendto(fd, out, (size_t)len, 0, (struct sockaddr *)&remote, remote_len);
                continue;
            }
            if (error) continue;
            struct conn *c = owner(vc.dcid, vc.dcidlen);
            if (!c) c = accept_conn(fd, &local, local_len, &remote, remote_len, data, (size_t)n);
            if (c && !c->closed && !receive(c, (struct sockaddr *)&remote, remote_len, data, (size_t)n)) forget(c);
        }
        for (size_t i = 0; i < conn_count; i++) {
            struct conn *c = conns[i];
            if (c->closed) continue;
            if (ngtcp2_conn_get_expiry(c->conn) <= now()) {
                int error = ngtcp2_conn_handle_expiry(c->conn, now());
                if (error) {
                    fail(c, error);
                    continue;
                }
            }
            flush(c);
        }
    }
}

static int on_ticket(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming, const gnutls_datum_t *m) {
    struct conn *c = ((ngtcp2_crypto_conn_ref *)gnutls_session_get_ptr(session))->user_data;
    if (!c->ticket.data) gnutls_session_get_data2(session, &c->ticket);
    return 0;
}

static void open_streams(struct conn *c) {
    size_t at_once = !strcmp(testcase, "stopsending") && c->finished == 0 ? 1 : c->path_count;
    int64_t id;
    while (c->next_path < at_once && !ngtcp2_conn_open_bidi_stream(c->conn, &id, NULL)) {
        struct stream *s = add(c, id);
        s->path = c->paths[c->next_path++];
        s->out = malloc(PATH_MAX);
        s->out_len = (size_t)snprintf((char *)s->out, PATH_MAX, "GET %s\r\n", s->path);
    }
}

static void bind_local(struct conn *c) {
    c->fd = open_socket(c->remote.ss_family);
    c->local_len = sizeof c->local;
    // Connected only to learn the local address, then bound to it.
    int probe = open_socket(c->remote.ss_family);
    if (connect(probe, (struct sockaddr *)&c->remote, c->remote_len) ||
        getsockname(probe, (struct sockaddr *)&c->local, &c->local_len))
        die("connect", strerror(errno));
    close(probe);
    if (bind(c->fd, (struct sockaddr *)&c->local, c->local_len)) die("bind", strerror(errno));
}

static bool download(const struct sockaddr_storage *remote, socklen_t remote_len, char **paths, size_t count,
                     gnutls_datum_t *ticket, bool keeps) {
    struct conn *c = calloc(1, sizeof *c);
    c->remote = *remote;
    c->remote_len = remote_len;
    c->paths = paths;
    c->path_count = count;
    bind_local(c);
    make_tls(c);
    gnutls_handshake_set_hook_function(c->tls, GNUTLS_HANDSHAKE_NEW_SESSION_TICKET, GNUTLS_HOOK_POST, on_ticket);
    if (ticket->data) gnutls_session_set_data(c->tls, ticket->data, ticket->size);
    ngtcp2_settings settings;
    ngtcp2_transport_params params;
    settings_for(&settings, &params);
    ngtcp2_cid scid = {.datalen = CIDLEN}, dcid = {.datalen = 18};
    gnutls_rnd(GNUTLS_RND_RANDOM, scid.data, scid.datalen);
    gnutls_rnd(GNUTLS_RND_RANDOM, dcid.data, dcid.datalen);
    ngtcp2_path path = {
        .local = {(ngtcp2_sockaddr *)&c->local, c->local_len},
        .remote = {(ngtcp2_sockaddr *)&c->remote, c->remote_len},
    };
    if (ngtcp2_conn_client_new(&c->conn, &dcid, &scid, &path, NGTCP2_PROTO_VER_V1, &callbacks, &settings, &params, NULL, c))
        die("connection", "cannot be made");
    ngtcp2_conn_set_tls_native_handle(c->conn, c->tls);
    ngtcp2_tstamp start = now(), done_at = 0, sent_at = 0;
    bool bounces = !strcmp(testcase, "datagrams");
    bool moved = false;
    uint8_t data[65536];
    while (!c->closed) {
        if (ngtcp2_conn_get_handshake_completed(c->conn) && !bounces) open_streams(c);
        if (ngtcp2_conn_get_handshake_completed(c->conn) && bounces && c->sent < DATAGRAMS &&
            now() - sent_at > 2 * NGTCP2_MILLISECONDS) {
            uint8_t bytes[1200] = {0, (uint8_t)c->sent};
            queue_datagram(c, bytes, 16 + c->sent++ * 37 % 1000);
            sent_at = now();
        }
        flush(c);
        if (c->closed) break;
        if (bounces && c->sent == DATAGRAMS && (c->returned == DATAGRAMS || now() - sent_at > NGTCP2_SECONDS)) break;
        if (c->finished == c->path_count) {
            if (!done_at) done_at = now();
            // A ticket may arrive after the file.
            if (!keeps || c->ticket.data || now() - done_at > NGTCP2_SECONDS) break;
        }
        ngtcp2_tstamp until = ngtcp2_conn_get_expiry(c->conn), limit = now() + (bounces ? 2 : 20) * NGTCP2_MILLISECONDS;
        wait_for(c->fd, until < limit ? until : limit);
        for (int budget = 0; budget < 64 && !c->closed; budget++) {
            struct sockaddr_storage from;
            socklen_t from_len = sizeof from;
            ssize_t n = recvfrom(c->fd, data, sizeof data, 0, (struct sockaddr *)&from, &from_len);
            if (n < 0) break;
            receive(c, (struct sockaddr *)&from, from_len, data, (size_t)n);
        }
        if (c->closed) break;
        if (ngtcp2_conn_get_expiry(c->conn) <= now()) {
            int error = ngtcp2_conn_handle_expiry(c->conn, now());
            if (error) fail(c, error);
        }
        ngtcp2_duration age = now() - start;
        if (!strcmp(testcase, "keyupdate") && !c->updated && age > 200 * NGTCP2_MILLISECONDS)
            c->updated = !ngtcp2_conn_initiate_key_update(c->conn, now());
        if (!strcmp(testcase, "migration") && !moved && age > 300 * NGTCP2_MILLISECONDS) {
            moved = true;
            close(c->fd);
            bind_local(c);
            ngtcp2_path to = {
                .local = {(ngtcp2_sockaddr *)&c->local, c->local_len},
                .remote = {(ngtcp2_sockaddr *)&c->remote, c->remote_len},
            };
            int error = ngtcp2_conn_initiate_immediate_migration(c->conn, &to, now());
            if (error) fail(c, error);
        }
    }
    bool good = !c->failed && c->finished == c->path_count;
    if (bounces) {
        printf("returned %zu\n", c->returned);
        good = !c->failed && c->returned > DATAGRAMS / 2;
    }
    if (keeps && !c->ticket.data) good = false;
    *ticket = c->ticket;
    if (!c->closed) {
        ngtcp2_connection_close_error error;
        ngtcp2_connection_close_error_default(&error);
        ngtcp2_connection_close_error_set_application_error(&error, 0, NULL, 0);
        close_conn(c, &error);
    }
    if (ticket->data && !keeps) printf("resumed %d\n", gnutls_session_is_resumed(c->tls));
    close(c->fd);
    return good;
}

static int get(void) {
    static char *paths[MAX_PATHS];
    size_t count = 0;
    struct sockaddr_storage remote = {0};
    socklen_t remote_len = 0;
    char *requests = strdup(var("REQUESTS", ""));
    for (char *url = strtok(requests, " "); url && count < MAX_PATHS; url = strtok(NULL, " ")) {
        if (strncmp(url, "https://", 8)) die(url, "is not https");
        char *host = url + 8, *slash = strchr(host, '/');
        if (!slash) die(url, "has no path");
        paths[count++] = strdup(slash);
        *slash = 0;
        remote_len = parse(host, &remote);
    }
    if (gnutls_certificate_set_x509_trust_file(credentials, var("CA", ""), GNUTLS_X509_FMT_PEM) < 1)
        die("authority", "cannot be read");
    gnutls_datum_t ticket = {0};
    if (!strcmp(testcase, "multiconnect")) {
        bool good = true;
        for (size_t i = 0; i < count; i++) good &= download(&remote, remote_len, paths + i, 1, &ticket, false);
        return good ? 0 : 1;
    }
    if (!strcmp(testcase, "resumption"))
        return download(&remote, remote_len, paths, 1, &ticket, true) &&
                       download(&remote, remote_len, paths + 1, count - 1, &ticket, false)
                   ? 0
                   : 1;
    return download(&remote, remote_len, paths, count, &ticket, false) ? 0 : 1;
}

int main(void) {
    static const char *clients[] = {"transfer", "reset",  "multiconnect", "chacha20",    "retry",
                                    "keyupdate", "stopsending",  "delayedacks", "migration", "resumption", "datagrams", NULL};
    static const char *servers[] = {"transfer", "reset",  "multiconnect", "chacha20",  "retry",
                                    "keyupdate", "delayedacks",  "migration", "resumption", "datagrams", NULL};
    setvbuf(stdout, NULL, _IOLBF, 0);
    testcase = var("TESTCASE", "");
    is_server = !strcmp(var("ROLE", "client"), "server");
    alpn = var("ALPN", alpn);
    payload_limit = (size_t)atoi(var("MTU", "1500")) - 48;
    const char **can = is_server ? servers : clients;
    while (*can && strcmp(*can, testcase)) can++;
    if (!*can) return 127;
    gnutls_rnd(GNUTLS_RND_RANDOM, secret, sizeof secret);
    if (gnutls_certificate_allocate_credentials(&credentials)) die("TLS", "no memory");
    if (is_server) serve();
    return get();
}
