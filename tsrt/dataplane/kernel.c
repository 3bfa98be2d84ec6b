#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum {
    HEADER = 16,     /* of a transport message: type, index, counter */
    TAG = 16,
    OVERHEAD = HEADER + TAG,
    IPV4 = 20,
    IPV6 = 40,
    TCP = 20,
    MAX_PACKET = 65535,
    PROTOCOL_TCP = 6,
    FLAG_PSH = 0x08,
    FLAG_ACK = 0x10,
    GET_TAG = 0x10,  /* EVP_CTRL_AEAD_GET_TAG */
    SET_TAG = 0x11,  /* EVP_CTRL_AEAD_SET_TAG */
};

/* -- the library that seals: OpenSSL's libcrypto, found when it is needed ---------- */

typedef struct evp_context evp_context;

static struct {
    evp_context *(*create)(void);
    void (*destroy)(evp_context *);
    const void *(*algorithm)(void);
    int (*begin)(evp_context *, const void *, void *, const uint8_t *, const uint8_t *,
                 int);
    int (*update)(evp_context *, uint8_t *, int *, const uint8_t *, int);
    int (*finish)(evp_context *, uint8_t *, int *);
    int (*control)(evp_context *, int, int, void *);
} evp;

struct tsrt_cipher {
    evp_context *context;
    int seals;
};

/* ISO C forbids to cast an object pointer to a function pointer; POSIX allows it. */
#define FIND(member, name)                                                            \
    do {                                                                              \
        void *found = dlsym(handle, name);                                            \
        if (found == NULL) return -1;                                                 \
        memcpy(&evp.member, &found, sizeof found);                                    \
    } while (0)

int tsrt_kernel_load(const char *library)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) return -1;
    FIND(create, "EVP_CIPHER_CTX_new");
    FIND(destroy, "EVP_CIPHER_CTX_free");
    FIND(algorithm, "EVP_chacha20_poly1305");
    FIND(begin, "EVP_CipherInit_ex");
    FIND(update, "EVP_CipherUpdate");
    FIND(finish, "EVP_CipherFinal_ex");
    FIND(control, "EVP_CIPHER_CTX_ctrl");
    return evp.algorithm() == NULL ? -1 : 0;
}

tsrt_cipher *tsrt_cipher_new(const uint8_t *key, int seals)
{
    tsrt_cipher *cipher = malloc(sizeof *cipher);
    if (cipher == NULL) return NULL;
    cipher->seals = seals != 0;
    cipher->context = evp.create();
    if (cipher->context == NULL ||
        evp.begin(cipher->context, evp.algorithm(), NULL, key, NULL,
                  cipher->seals) != 1) {
        tsrt_cipher_free(cipher);
        return NULL;
    }
    return cipher;
}

void tsrt_cipher_free(tsrt_cipher *cipher)
{
    if (cipher == NULL) return;
    if (cipher->context != NULL) evp.destroy(cipher->context);
    free(cipher);
}

static void write_counter(uint8_t *out, uint64_t counter)
{
    for (int i = 0; i < 8; i++) out[i] = (uint8_t)(counter >> (8 * i));
}

static uint64_t read_counter(const uint8_t *in)
{
    uint64_t counter = 0;
    for (int i = 7; i >= 0; i--) counter = counter << 8 | in[i];
    return counter;
}

static int begin_message(tsrt_cipher *cipher, uint64_t counter)
{
    uint8_t nonce[12] = {0};
    write_counter(nonce + 4, counter);
    return evp.begin(cipher->context, NULL, NULL, NULL, nonce, cipher->seals) == 1;
}

/* Seal `size` bytes where they lie; the tag goes behind them. */
static int seal_in_place(tsrt_cipher *cipher, uint64_t counter, uint8_t *text,
                         int32_t size)
{
    int done = 0;
    return begin_message(cipher, counter) &&
           evp.update(cipher->context, text, &done, text, size) == 1 &&
           done == size &&
           evp.finish(cipher->context, text + size, &done) == 1 &&
           evp.control(cipher->context, GET_TAG, TAG, text + size) == 1;
}

/* Open `size` bytes, behind which the tag lies, to `out`. */
static int open_to(tsrt_cipher *cipher, uint64_t counter, const uint8_t *text,
                   int32_t size, uint8_t *out)
{
    uint8_t tag[TAG];
    int done = 0;
    memcpy(tag, text + size, TAG);
    return begin_message(cipher, counter) &&
           evp.control(cipher->context, SET_TAG, TAG, tag) == 1 &&
           evp.update(cipher->context, out, &done, text, size) == 1 &&
           evp.finish(cipher->context, out + done, &done) == 1;
}

/* -- checksums (RFC 1071) ------------------------------------------------------------ */

/* Let the loader choose by what the processor has, where compiler and system can. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define BY_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define BY_PROCESSOR
#endif

/* The sum of 32-bit words, half of them in each half of 64-bit words. */
BY_PROCESSOR static uint64_t sum_blocks(const uint8_t *data, int64_t blocks)
{
    uint64_t low = 0, high = 0;
    for (int64_t i = 0; i < blocks; i++) {
        uint64_t word;
        memcpy(&word, data + 8 * i, 8);
        low += word & 0xFFFFFFFF;
        high += word >> 32;
    }
    return low + high;
}

/* The sum of 16-bit words in the machine's own byte order, not folded. */
static uint64_t sum_words(const uint8_t *data, int64_t length, uint64_t sum)
{
    int64_t at = length & ~(int64_t)7;
    sum += sum_blocks(data, length >> 3);
    for (; at + 2 <= length; at += 2) {
        uint16_t word;
        memcpy(&word, data + at, 2);
        sum += word;
    }
    if (at < length) {
        uint8_t odd[2] = {data[at], 0};
        uint16_t word;
        memcpy(&word, odd, 2);
        sum += word;
    }
    return sum;
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16) sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)sum;
}

/* The same word in network order, in the machine's own. */
static uint16_t in_order(uint32_t value)
{
    uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    uint16_t word;
    memcpy(&word, bytes, 2);
    return word;
}

static uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xFFFF);
}

/* The sum of a TCP segment with its pseudo-header; 0xFFFF if it is right. */
static uint16_t sum_segment(const uint8_t *packet, int32_t network, int32_t length)
{
    int32_t addresses = network == IPV4 ? 12 : 8;
    uint64_t sum = in_order(PROTOCOL_TCP) + (uint64_t)in_order((uint32_t)(length - network));
    return fold(sum_words(packet + addresses, length - addresses, sum));
}

/* -- out --------------------------------------------------------------------------------- */

/* Set lengths and checksums of a packet. */
static void finish_headers(uint8_t *packet, int32_t network, int32_t length)
{
    uint8_t *segment = packet + network;
    uint16_t word;
    if (network == IPV4) {
        put16(packet + 2, (uint32_t)length);
        put16(packet + 10, 0);
        word = (uint16_t)~fold(sum_words(packet, IPV4, 0));
        memcpy(packet + 10, &word, 2);
    } else {
        put16(packet + 4, (uint32_t)(length - IPV6));
    }
    put16(segment + 16, 0);
    word = (uint16_t)~sum_segment(packet, network, length);
    memcpy(segment + 16, &word, 2);
}

int64_t tsrt_seal_run(tsrt_cipher *cipher, const uint8_t *head, int32_t head_length,
                      int32_t network, const uint8_t *payload, int64_t payload_length,
                      int32_t mss, int32_t last_flags, const uint8_t *prefix,
                      uint64_t counter, int32_t mtu, uint8_t *out, int64_t room)
{
    if (cipher == NULL || !cipher->seals || (network != IPV4 && network != IPV6) ||
        head_length < network + TCP || head_length > network + 60 || mss < 1 ||
        mss > MAX_PACKET - head_length || payload_length < 1)
        return -1;
    uint32_t seq = get32(head + network + 4);
    int64_t written = 0;
    for (int64_t at = 0; at < payload_length; at += mss) {
        int32_t size = payload_length - at < mss ? (int32_t)(payload_length - at) : mss;
        int32_t length = head_length + size;
        /* Zeros up to a multiple of 16, but not beyond the MTU. */
        int32_t padded = (length + 15) & ~15;
        if (padded > mtu) padded = length > mtu ? length : mtu;
        if (room - written < padded + OVERHEAD) return -1;
        uint8_t *message = out + written;
        uint8_t *packet = message + HEADER;
        memcpy(message, prefix, 8);
        write_counter(message + 8, counter);
        memcpy(packet, head, (size_t)head_length);
        memcpy(packet + head_length, payload + at, (size_t)size);
        memset(packet + length, 0, (size_t)(padded - length));
        put32(packet + network + 4, seq);
        if (at + size >= payload_length) packet[network + 13] |= (uint8_t)last_flags;
        finish_headers(packet, network, length);
        if (!seal_in_place(cipher, counter, packet, padded)) return -2;
        written += padded + OVERHEAD;
        seq += (uint32_t)size;
        counter++;
    }
    return written;
}

/* -- in ------------------------------------------------------------------------------------ */

/* The length that a packet says it has, if it lies within `size`; else 0. */
static int32_t length_of(const uint8_t *packet, int32_t size)
{
    int32_t length;
    if (size < IPV4) return 0;
    if (packet[0] >> 4 == 4)
        length = get16(packet + 2);
    else if (packet[0] >> 4 == 6 && size >= IPV6)
        length = get16(packet + 4) + IPV6;
    else
        return 0;
    return length >= IPV4 && length <= size ? length : 0;
}

/*
 * Whether a packet is a plain data segment with right checksums: no IP options, no
 * fragment, and no flag but ACK and maybe PSH.  Returns where its payload begins.
 */
static int32_t payload_of(const uint8_t *packet, int32_t length)
{
    int32_t network;
    if (packet[0] == 0x45 && length > IPV4 + TCP) {
        if (packet[9] != PROTOCOL_TCP || packet[6] & 0x3F || packet[7] ||
            fold(sum_words(packet, IPV4, 0)) != 0xFFFF)
            return 0;
        network = IPV4;
    } else if (packet[0] >> 4 == 6 && length > IPV6 + TCP) {
        if (packet[6] != PROTOCOL_TCP) return 0;
        network = IPV6;
    } else {
        return 0;
    }
    uint32_t bits = get16(packet + network + 12);
    int32_t start = network + (int32_t)(bits >> 12 << 2);
    if ((bits & 0xFFF & ~(uint32_t)FLAG_PSH) != FLAG_ACK || start < network + TCP ||
        start >= length || sum_segment(packet, network, length) != 0xFFFF)
        return 0;
    return start;
}

/* Whether a segment goes on where a run stands; both are plain data segments. */
static int follows(const uint8_t *first, int32_t start, const uint8_t *next,
                   uint32_t seq)
{
    int32_t network = first[0] >> 4 == 4 ? IPV4 : IPV6;
    if (network == IPV4) {
        if (memcmp(first, next, 2) || memcmp(first + 6, next + 6, 4) ||
            memcmp(first + 12, next + 12, 12))
            return 0;
    } else if (memcmp(first, next, 4) || memcmp(first + 6, next + 6, 38)) {
        return 0;
    }
    const uint8_t *ours = first + network, *theirs = next + network;
    return get32(theirs + 4) == seq && !memcmp(ours + 8, theirs + 8, 5) &&
           !memcmp(ours + 14, theirs + 14, 2) &&
           !memcmp(ours + TCP, theirs + TCP, (size_t)(start - network - TCP));
}

static void find_runs(const uint8_t *plain, int64_t stride, const int32_t *sizes,
                      uint8_t *payload, tsrt_item *items, tsrt_opened *opened)
{
    int64_t filled = 0;
    int32_t at = 0;
    while (at < opened->taken) {
        const uint8_t *packet = plain + at * stride;
        int32_t length = length_of(packet, sizes[at]);
        if (!length) {
            if (sizes[at])
                opened->dropped++;
            else
                opened->keepalives++;
            at++;
            continue;
        }
        tsrt_item *item = &items[opened->items++];
        memset(item, 0, sizeof *item);
        item->first = at++;
        item->count = 1;
        item->length = length;
        if (at == opened->taken) break;
        int32_t start = payload_of(packet, length);
        int32_t network = packet[0] >> 4 == 4 ? IPV4 : IPV6;
        if (!start || packet[network + 13] & FLAG_PSH) continue;
        int32_t mss = length - start;
        uint32_t seq = get32(packet + network + 4) + (uint32_t)mss;
        item->payload = filled;
        item->flags = packet[network + 13];
        memcpy(payload + filled, packet + start, (size_t)mss);
        int64_t end = filled + mss;
        while (at < opened->taken && !(item->flags & FLAG_PSH)) {
            const uint8_t *next = plain + at * stride;
            int32_t found = length_of(next, sizes[at]);
            if (found <= start || found > length || payload_of(next, found) != start ||
                !follows(packet, start, next, seq))
                break;
            int32_t size = found - start;
            memcpy(payload + end, next + start, (size_t)size);
            end += size;
            seq += (uint32_t)size;
            item->flags |= next[network + 13];
            item->count++;
            at++;
            if (size < mss) break;
        }
        if (item->count > 1) {
            item->start = start;
            item->payload_length = end - filled;
            filled = end;
        }
    }
}

int tsrt_open_run(tsrt_cipher *cipher, const uint8_t *data, int64_t length,
                  int64_t size, uint64_t counter, uint8_t *plain, uint8_t *payload,
                  int64_t room, int32_t *sizes, tsrt_item *items, int32_t most,
                  tsrt_opened *opened)
{
    memset(opened, 0, sizeof *opened);
    if (cipher == NULL || cipher->seals || size < OVERHEAD ||
        size > MAX_PACKET + OVERHEAD || length < 0)
        return -1;
    int64_t stride = size - OVERHEAD;
    for (int64_t at = 0; length - at >= OVERHEAD; at += size) {
        int64_t here = length - at < size ? length - at : size;
        int32_t inner = (int32_t)(here - OVERHEAD);
        uint8_t *out = plain + opened->taken * stride;
        if (opened->taken >= most || room - opened->taken * stride < inner) return -1;
        if (read_counter(data + at + 8) != counter ||
            !open_to(cipher, counter, data + at + HEADER, inner, out))
            break;
        sizes[opened->taken++] = inner;
        counter++;
    }
    find_runs(plain, stride, sizes, payload, items, opened);
    return 0;
}
