/*
 * Feeds the compiled kernel with what nobody honest sends, to be built together with
 * it and with -fsanitize=address,undefined.  Every buffer has exactly the size that the
 * kernel was told, so that a single byte beyond it is found.
 *
 * It knows of the kernel what kernel.h says, and seals by itself what the kernel would
 * not seal.
 *
 *     kernelfuzz LIBCRYPTO SEED ROUNDS
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../dataplane/kernel.h"

enum {
    HEADER = 16,
    TAG = 16,
    OVERHEAD = HEADER + TAG,
    IPV4 = 20,
    IPV6 = 40,
    TCP = 20,
    MAX_PACKET = 65535,
    MOST_HEAD = IPV6 + TCP + 40,
};

static const uint8_t KEY[32] = {1};
static uint64_t state;

static uint32_t roll(uint32_t sides)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % sides;
}

/* From `least` on: mostly usual sizes, sometimes any, sometimes the very largest. */
static int32_t roll_size(int32_t least, int32_t usual, int32_t most)
{
    uint32_t kind = roll(100);
    if (kind == 0) return most - (int32_t)roll(40);
    if (kind == 1) return least + (int32_t)roll((uint32_t)(most - least + 1));
    return least + (int32_t)roll((uint32_t)usual);
}

static void fill(uint8_t *data, int64_t size)
{
    int64_t i = 0;
    for (; i + 4 <= size; i += 4) {
        uint32_t word = roll(UINT32_MAX);
        memcpy(data + i, &word, 4);
    }
    for (; i < size; i++) data[i] = (uint8_t)roll(256);
}

static void *exact(int64_t size)
{
    /* One byte at least: malloc(0) may give nothing. */
    void *found = malloc((size_t)(size ? size : 1));
    if (found == NULL) abort();
    return found;
}

static void fail(const char *what)
{
    fprintf(stderr, "kernelfuzz: %s\n", what);
    exit(1);
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_counter(uint8_t *at, uint64_t counter)
{
    for (int i = 0; i < 8; i++) at[i] = (uint8_t)(counter >> (8 * i));
}

/* -- sealing without the kernel ------------------------------------------------------- */

typedef struct evp_context evp_context;

static struct {
    int (*begin)(evp_context *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*update)(evp_context *, uint8_t *, int *, const uint8_t *, int);
    int (*finish)(evp_context *, uint8_t *, int *);
    int (*control)(evp_context *, int, int, void *);
    evp_context *context;
} evp;

static void *find(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (found == NULL) fail(name);
    return found;
}

static void load(const char *name)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL), *found;
    if (library == NULL || tsrt_kernel_load(name)) fail("no library");
    evp_context *(*create)(void);
    const void *(*algorithm)(void);
    /* ISO C forbids to cast an object pointer to a function pointer. */
    found = find(library, "EVP_CIPHER_CTX_new"), memcpy(&create, &found, sizeof found);
    found = find(library, "EVP_chacha20_poly1305");
    memcpy(&algorithm, &found, sizeof found);
    found = find(library, "EVP_EncryptInit_ex"), memcpy(&evp.begin, &found, sizeof found);
    found = find(library, "EVP_EncryptUpdate"), memcpy(&evp.update, &found, sizeof found);
    found = find(library, "EVP_EncryptFinal_ex");
    memcpy(&evp.finish, &found, sizeof found);
    found = find(library, "EVP_CIPHER_CTX_ctrl");
    memcpy(&evp.control, &found, sizeof found);
    evp.context = create();
    if (evp.context == NULL || !evp.begin(evp.context, algorithm(), NULL, KEY, NULL))
        fail("no cipher");
}

/* Make a transport message of `inner` bytes that lie where its text is to be. */
static void seal(uint8_t *message, uint64_t counter, int32_t inner)
{
    uint8_t nonce[12] = {0}, *text = message + HEADER;
    int done = 0;
    put_counter(nonce + 4, counter);
    put_counter(message + 8, counter);
    if (!evp.begin(evp.context, NULL, NULL, NULL, nonce) ||
        !evp.update(evp.context, text, &done, text, inner) || done != inner ||
        !evp.finish(evp.context, text + inner, &done) ||
        !evp.control(evp.context, 0x10, TAG, text + inner)) /* GET_TAG */
        fail("sealing failed");
}

/* -- packets ------------------------------------------------------------------------------ */

/* A plausible header: right enough to get far, wrong often enough. */
static int32_t make_head(uint8_t *head, int32_t network)
{
    int32_t options = (int32_t)roll(11) * 4;
    memset(head, 0, MOST_HEAD);
    if (network == IPV4) {
        head[0] = 0x45;
        head[9] = 6;
        fill(head + 12, 8);
    } else {
        head[0] = 0x60;
        head[6] = 6;
        fill(head + 8, 32);
    }
    fill(head + network, TCP);
    head[network + 12] = (uint8_t)((TCP + options) << 2);
    head[network + 13] = 0x10; /* ACK */
    fill(head + network + TCP, options);
    return network + TCP + options;
}

static uint32_t sum(const uint8_t *data, int32_t size, uint64_t total)
{
    for (int32_t i = 0; i < size; i++) total += (uint32_t)data[i] << (i & 1 ? 0 : 8);
    while (total >> 16) total = (total & 0xFFFF) + (total >> 16);
    return (uint32_t)total;
}

/* Set sequence number, lengths and checksums. */
static void finish_packet(uint8_t *packet, int32_t network, int32_t length, uint32_t seq)
{
    int32_t addresses = network == IPV4 ? 12 : 8;
    if (network == IPV4) {
        put16(packet + 2, (uint32_t)length);
        put16(packet + 10, 0);
        put16(packet + 10, ~sum(packet, IPV4, 0));
    } else {
        put16(packet + 4, (uint32_t)(length - IPV6));
    }
    put16(packet + network + 4, seq >> 16);
    put16(packet + network + 6, seq);
    put16(packet + network + 16, 0);
    put16(packet + network + 16,
          ~sum(packet + addresses, length - addresses, 6 + (uint64_t)(length - network)));
}

/* -- what comes out ------------------------------------------------------------------------ */

/* Where the kernel puts what it opens. */
typedef struct {
    uint8_t *plain, *joined;
    int32_t *sizes;
    tsrt_item *items;
    tsrt_opened opened;
    int64_t room;
} outcome;

static outcome prepare(int64_t room, int32_t most)
{
    outcome made = {exact(room), exact(room), exact(most * 4),
                    exact(most * (int64_t)sizeof(tsrt_item)), {0, 0, 0, 0}, room};
    return made;
}

static void release(outcome *made)
{
    free(made->plain), free(made->joined), free(made->sizes), free(made->items);
}

static void check_items(const outcome *made)
{
    const tsrt_item *items = made->items;
    int32_t next = 0, seen = 0;
    for (int32_t i = 0; i < made->opened.items; i++) {
        if (items[i].first < next || items[i].count < 1) fail("items overlap");
        next = items[i].first + items[i].count;
        seen += items[i].count;
        if (items[i].payload < 0 || items[i].payload_length < 0 ||
            items[i].payload + items[i].payload_length > made->room)
            fail("a payload lies outside");
        if (items[i].length < IPV4 || items[i].length > made->sizes[items[i].first] ||
            items[i].start > items[i].length)
            fail("a packet lies outside");
    }
    if (next > made->opened.taken) fail("an item lies outside");
    if (seen + made->opened.dropped + made->opened.keepalives != made->opened.taken)
        fail("messages got lost");
}

/* Whether what came out is the packet that it should be, but for its payload. */
static void check_packet(const uint8_t *packet, const uint8_t *head, int32_t network,
                         int32_t length, uint32_t seq)
{
    int32_t addresses = network == IPV4 ? 12 : 8;
    uint8_t wanted[4];
    put16(wanted, seq >> 16), put16(wanted + 2, seq);
    if (memcmp(packet + addresses, head + addresses, (size_t)(network + 4 - addresses)) ||
        memcmp(packet + network + 4, wanted, 4))
        fail("another header came out");
    if ((network == IPV4 && sum(packet, IPV4, 0) != 0xFFFF) ||
        sum(packet + addresses, length - addresses, 6 + (uint64_t)(length - network)) !=
            0xFFFF)
        fail("a checksum is wrong");
}

/* All that was sealed came out, in order. */
static void check_payload(const outcome *made, int64_t stride, int32_t head_length,
                          const uint8_t *payload, int64_t length)
{
    int64_t at = 0;
    for (int32_t i = 0; i < made->opened.items; i++) {
        const tsrt_item *item = &made->items[i];
        const uint8_t *part = made->plain + item->first * stride + head_length;
        int64_t size = item->length - head_length;
        if (item->start) {
            part = made->joined + item->payload;
            size = item->payload_length;
        }
        if (at + size > length || memcmp(part, payload + at, (size_t)size))
            fail("other data came out");
        at += size;
    }
    if (at != length) fail("data is missing");
}

/* -- what is done --------------------------------------------------------------------------- */

/* Seal a run, change something, open it; what was not changed comes out again. */
static void round_trip(tsrt_cipher *sealer, tsrt_cipher *opener)
{
    uint8_t head[MOST_HEAD], prefix[8] = {4};
    int32_t network = roll(2) ? IPV4 : IPV6;
    int32_t head_length = make_head(head, network);
    int32_t mss = roll_size(1, 1500, MAX_PACKET - head_length);
    int32_t count = 1 + (int32_t)roll(12);
    int64_t length = (int64_t)(count - 1) * mss + 1 + roll((uint32_t)mss);
    int32_t mtu = (int32_t)roll(4) ? 1280 : roll_size(0, 1600, MAX_PACKET);
    uint8_t *payload = exact(length);
    fill(payload, length);
    int32_t full = head_length + mss, padded = (full + 15) & ~15;
    if (padded > mtu) padded = full > mtu ? full : mtu;
    int64_t size = padded + OVERHEAD, room = count * size;
    int tight = !roll(4);
    if (tight) room -= 1 + roll((uint32_t)room);
    uint8_t *sealed = exact(room);
    uint64_t counter = roll(2) ? roll(1000) : UINT64_MAX - roll(20);
    int64_t written =
        tsrt_seal_run(sealer, head, head_length, network, payload, length, mss,
                      (int32_t)roll(256), prefix, counter, mtu, sealed, room);
    if (written == -2) fail("sealing failed");
    if (written < 0 && !tight) fail("a run was refused for which there is room");
    if (written >= 0) {
        /* What is opened lies in a buffer of exactly that size. */
        uint8_t *data = exact(written);
        memcpy(data, sealed, (size_t)written);
        int changed = !roll(3);
        if (changed) data[roll((uint32_t)written)] ^= (uint8_t)(1 + roll(255));
        int64_t cut = roll(4) ? 0 : roll((uint32_t)written);
        int64_t inner = size - OVERHEAD;
        outcome made = prepare(count * inner, count);
        if (tsrt_open_run(opener, data, written - cut, size, counter, made.plain,
                          made.joined, made.room, made.sizes, made.items, count,
                          &made.opened))
            fail("a run that fits was refused");
        check_items(&made);
        if (!changed && !cut) {
            if (made.opened.taken != count) fail("a message was not taken");
            check_payload(&made, inner, head_length, payload, length);
            const uint8_t *first = head + network + 4;
            uint32_t seq = (uint32_t)first[0] << 24 | (uint32_t)first[1] << 16 |
                           (uint32_t)first[2] << 8 | first[3];
            for (int32_t i = 0; i < count; i++) {
                int64_t here = length - (int64_t)i * mss;
                check_packet(made.plain + i * inner, head, network,
                             head_length + (here < mss ? (int32_t)here : mss),
                             seq + (uint32_t)i * (uint32_t)mss);
            }
        }
        release(&made);
        free(data);
    }
    free(payload), free(sealed);
}

/* Open authentic messages with anything in them. */
static void strange_plaintexts(tsrt_cipher *opener)
{
    int32_t count = 1 + (int32_t)roll(10), inner = roll_size(0, 200, MAX_PACKET);
    int64_t size = inner + OVERHEAD, length = count * size;
    uint8_t *data = exact(length), head[MOST_HEAD];
    int32_t network = roll(2) ? IPV4 : IPV6;
    int32_t head_length = make_head(head, network);
    uint32_t seq = roll(1u << 31);
    /* Behind one of them a counter is left out. */
    int32_t gap = roll(8) ? count : (int32_t)roll((uint32_t)count);
    fill(data, length);
    for (int32_t i = 0; i < count; i++) {
        uint8_t *message = data + i * size, *packet = message + HEADER;
        if (inner >= head_length && roll(8)) {
            int32_t claimed = inner - (int32_t)roll(4);
            /* Sometimes the TCP header is longer than the packet. */
            if (!roll(4)) claimed = network + TCP + (int32_t)roll(44);
            memcpy(packet, head, (size_t)head_length);
            if (claimed >= network + TCP && claimed <= inner) {
                finish_packet(packet, network, claimed, seq);
                seq += (uint32_t)(claimed - head_length);
            }
            if (!roll(6)) packet[roll((uint32_t)inner)] ^= (uint8_t)roll(256);
        }
        seal(message, (uint64_t)(i + (i > gap)), inner);
    }
    int64_t space = count * (int64_t)inner;
    if (!roll(5)) space -= roll((uint32_t)(space + 1));
    int32_t most = count - (roll(5) ? 0 : (int32_t)roll((uint32_t)count));
    outcome made = prepare(space, most);
    if (!tsrt_open_run(opener, data, length, size, 0, made.plain, made.joined, space,
                       made.sizes, made.items, most, &made.opened)) {
        check_items(&made);
        if (made.opened.taken != (gap + 1 < count ? gap + 1 : count))
            fail("not what is in order was taken");
    } else if (space == count * (int64_t)inner && most == count) {
        fail("messages were refused for which there is room");
    }
    release(&made);
    free(data);
}

/* Arguments that fit together in no way. */
static void nonsense(tsrt_cipher *sealer, tsrt_cipher *opener)
{
    uint8_t data[64], out[64], prefix[8] = {0};
    int32_t sizes[4];
    tsrt_item items[4];
    tsrt_opened opened;
    fill(data, sizeof data);
    tsrt_seal_run(sealer, data, (int32_t)roll(80) - 8, (int32_t)roll(3) * 20, data, 20,
                  (int32_t)roll(70000) - 5, 0, prefix, 0, (int32_t)roll(70000), out,
                  sizeof out);
    tsrt_open_run(opener, data, (int64_t)roll(65), (int64_t)roll(100), 0, out, out + 32,
                  roll(33), sizes, items, (int32_t)roll(5), &opened);
    if (tsrt_seal_run(opener, data, 40, 20, data, 20, 20, 0, prefix, 0, 1280, out,
                      sizeof out) != -1 ||
        tsrt_open_run(sealer, data, 64, 64, 0, out, out + 32, 32, sizes, items, 4,
                      &opened) != -1)
        fail("a cipher was used the wrong way round");
    uint8_t head[MOST_HEAD], room[256];
    int32_t head_length = make_head(head, IPV4);
    if (tsrt_seal_run(sealer, head, head_length, IPV4, data, 20,
                      MAX_PACKET - head_length + 1 + (int32_t)roll(9), 0, prefix, 0, 1280,
                      room, sizeof room) != -1)
        fail("a segment larger than the largest was taken");
    if (tsrt_open_run(opener, data, 64, MAX_PACKET + OVERHEAD + 1, 0, out, out + 32, 32,
                      sizes, items, 4, &opened) != -1)
        fail("a message larger than the largest was taken");
}

int main(int count, char **words)
{
    if (count != 4) return 2;
    load(words[1]);
    state = strtoull(words[2], NULL, 10);
    tsrt_cipher *sealer = tsrt_cipher_new(KEY, 1), *opener = tsrt_cipher_new(KEY, 0);
    if (sealer == NULL || opener == NULL) fail("no cipher");
    for (long rounds = strtol(words[3], NULL, 10); rounds > 0; rounds--) {
        round_trip(sealer, opener);
        strange_plaintexts(opener);
        nonsense(sealer, opener);
    }
    tsrt_cipher_free(sealer);
    tsrt_cipher_free(opener);
    puts("ok");
    return 0;
}
