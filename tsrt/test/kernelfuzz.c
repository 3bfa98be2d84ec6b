/*
 * Feeds the compiled kernel with what nobody honest sends, to be built with
 * -fsanitize=address,undefined.  Every buffer has exactly the size that the kernel was
 * told, so that a single byte beyond it is found.
 *
 *     kernelfuzz LIBCRYPTO SEED ROUNDS
 */
#include "../dataplane/kernel.c"

#include <stdio.h>

static uint64_t state;

static uint32_t roll(uint32_t sides)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % sides;
}

static void fill(uint8_t *data, int64_t size)
{
    for (int64_t i = 0; i < size; i++) data[i] = (uint8_t)roll(256);
}

static uint8_t *exact(int64_t size)
{
    /* One byte at least: malloc(0) may give nothing. */
    uint8_t *found = malloc((size_t)(size ? size : 1));
    if (found == NULL) abort();
    return found;
}

static void fail(const char *what)
{
    fprintf(stderr, "kernelfuzz: %s\n", what);
    exit(1);
}

/* A plausible header: right enough to get far, wrong often enough. */
static int32_t make_head(uint8_t *head, int32_t network)
{
    int32_t options = (int32_t)roll(11) * 4;
    memset(head, 0, 100);
    if (network == IPV4) {
        head[0] = 0x45;
        head[9] = PROTOCOL_TCP;
        fill(head + 12, 8);
    } else {
        head[0] = 0x60;
        head[6] = PROTOCOL_TCP;
        fill(head + 8, 32);
    }
    fill(head + network, TCP);
    head[network + 12] = (uint8_t)((TCP + options) << 2);
    head[network + 13] = FLAG_ACK;
    fill(head + network + TCP, options);
    return network + TCP + options;
}

static void check_items(const tsrt_opened *opened, const tsrt_item *items,
                        int64_t room)
{
    int32_t next = 0, seen = 0;
    for (int32_t i = 0; i < opened->items; i++) {
        if (items[i].first < next || items[i].count < 1) fail("items overlap");
        next = items[i].first + items[i].count;
        seen += items[i].count;
        if (items[i].payload < 0 || items[i].payload + items[i].payload_length > room)
            fail("a payload lies outside");
    }
    if (next > opened->taken) fail("an item lies outside");
    if (seen + opened->dropped + opened->keepalives != opened->taken)
        fail("messages got lost");
}

/* Seal a run, change something, open it; what was not changed comes out again. */
static void round_trip(tsrt_cipher *sealer, tsrt_cipher *opener)
{
    static const int networks[] = {IPV4, IPV6};
    uint8_t head[100], prefix[8] = {4};
    int32_t network = networks[roll(2)];
    int32_t head_length = make_head(head, network);
    int32_t mss = 1 + (int32_t)roll(1500), count = 1 + (int32_t)roll(12);
    int64_t length = (int64_t)(count - 1) * mss + 1 + roll((uint32_t)mss);
    int32_t mtu = (int32_t)roll(4) ? 1280 : (int32_t)roll(1600);
    uint8_t *payload = exact(length);
    fill(payload, length);
    int32_t full = head_length + mss, padded = (full + 15) & ~15;
    if (padded > mtu) padded = full > mtu ? full : mtu;
    int64_t size = padded + OVERHEAD, room = count * size;
    if (!roll(4)) room -= 1 + roll((uint32_t)room);
    uint8_t *sealed = exact(room);
    uint64_t counter = roll(2) ? roll(1000) : UINT64_MAX - roll(20);
    int64_t written =
        tsrt_seal_run(sealer, head, head_length, network, payload, length, mss,
                      (int32_t)roll(256), prefix, counter, mtu, sealed, room);
    if (written == -2) fail("sealing failed");
    if (written >= 0) {
        /* What is opened lies in a buffer of exactly that size. */
        uint8_t *data = exact(written);
        memcpy(data, sealed, (size_t)written);
        int changed = !roll(3);
        if (changed) data[roll((uint32_t)written)] ^= (uint8_t)(1 + roll(255));
        int64_t cut = roll(4) ? 0 : roll((uint32_t)written);
        int64_t inner = size - OVERHEAD;
        int64_t space = count * inner;
        uint8_t *plain = exact(space), *joined = exact(space);
        int32_t *sizes = (int32_t *)exact(count * 4);
        tsrt_item *items = (tsrt_item *)exact(count * (int64_t)sizeof(tsrt_item));
        tsrt_opened opened;
        int told = tsrt_open_run(opener, data, written - cut, size, counter, plain,
                                 joined, space, sizes, items, count, &opened);
        if (told) fail("a run that fits was refused");
        check_items(&opened, items, space);
        if (!changed && !cut && opened.taken != count) fail("a message was not taken");
        free(data), free(plain), free(joined), free(sizes), free(items);
    }
    free(payload), free(sealed);
}

/* Open authentic messages with anything in them. */
static void strange_plaintexts(tsrt_cipher *sealer, tsrt_cipher *opener)
{
    int32_t count = 1 + (int32_t)roll(10), inner = (int32_t)roll(200);
    int64_t size = inner + OVERHEAD, length = count * size;
    uint8_t *data = exact(length), head[100];
    int32_t network = roll(2) ? IPV4 : IPV6;
    int32_t head_length = make_head(head, network);
    uint32_t seq = roll(1u << 31);
    fill(data, length);
    for (int32_t i = 0; i < count; i++) {
        uint8_t *message = data + i * size, *packet = message + HEADER;
        write_counter(message + 8, (uint64_t)i);
        if (inner >= head_length && roll(8)) {
            int32_t claimed = inner - (int32_t)roll(4);
            /* Sometimes the TCP header is longer than the packet. */
            if (!roll(4)) claimed = network + TCP + (int32_t)roll(44);
            memcpy(packet, head, (size_t)head_length);
            if (claimed >= network + TCP && claimed <= inner) {
                put32(packet + network + 4, seq);
                finish_headers(packet, network, claimed);
                seq += (uint32_t)(claimed - head_length);
            }
            if (!roll(6)) packet[roll((uint32_t)inner)] ^= (uint8_t)roll(256);
        }
        if (!seal_in_place(sealer, (uint64_t)i, packet, inner)) fail("sealing failed");
    }
    int64_t space = count * (int64_t)inner;
    if (!roll(5)) space -= roll((uint32_t)(space + 1));
    int32_t most = count - (roll(5) ? 0 : (int32_t)roll((uint32_t)count));
    uint8_t *plain = exact(space), *joined = exact(space);
    int32_t *sizes = (int32_t *)exact(most * 4);
    tsrt_item *items = (tsrt_item *)exact(most * (int64_t)sizeof(tsrt_item));
    tsrt_opened opened;
    if (!tsrt_open_run(opener, data, length, size, 0, plain, joined, space, sizes,
                       items, most, &opened)) {
        check_items(&opened, items, space);
        if (opened.taken != count) fail("a message was not taken");
    }
    free(data), free(plain), free(joined), free(sizes), free(items);
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
}

int main(int count, char **words)
{
    if (count != 4) return 2;
    if (tsrt_kernel_load(words[1])) fail("no library");
    state = strtoull(words[2], NULL, 10);
    uint8_t key[32] = {1};
    tsrt_cipher *sealer = tsrt_cipher_new(key, 1), *opener = tsrt_cipher_new(key, 0);
    if (sealer == NULL || opener == NULL) fail("no cipher");
    for (long rounds = strtol(words[3], NULL, 10); rounds > 0; rounds--) {
        round_trip(sealer, opener);
        strange_plaintexts(sealer, opener);
        nonsense(sealer, opener);
    }
    tsrt_cipher_free(sealer);
    tsrt_cipher_free(opener);
    puts("ok");
    return 0;
}
