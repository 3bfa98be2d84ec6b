/*
 * The compiled kernel of the data plane: runs of TCP segments in, transport messages
 * of WireGuard out, and the reverse.
 *
 * No function keeps a pointer, allocates per packet, or touches anything but what it
 * was given.  All lengths are in bytes.
 */

typedef struct tsrt_cipher tsrt_cipher;

/* What came out of opened messages: one packet, or a run of TCP segments. */
typedef struct {
    int32_t first;       /* the message that it began with */
    int32_t count;       /* how many messages it was in */
    int32_t length;      /* of the first packet */
    int32_t start;       /* of the payload in the first packet; 0 for no run */
    int64_t payload;     /* offset of the joined payload */
    int64_t payload_length;
    int32_t flags;       /* TCP flags of all together */
} tsrt_item;

typedef struct {
    int32_t taken;       /* messages that were authentic and in order */
    int32_t items;       /* what was found in them */
    int32_t keepalives;  /* how many were empty */
    int32_t dropped;     /* how many held no packet */
} tsrt_opened;

/* Find the library that seals; 0 if it is usable. */
int tsrt_kernel_load(const char *library);

/* A cipher for a key of 32 bytes, for one direction; NULL without memory. */
tsrt_cipher *tsrt_cipher_new(const uint8_t *key, int seals);
void tsrt_cipher_free(tsrt_cipher *cipher);

/*
 * Cut a payload into segments, make their packets and seal them.
 *
 * head: IP and TCP header of a full segment, with its sequence number.
 * network: length of the IP header in it.
 * last_flags: TCP flags that the last segment has besides.
 * Returns the bytes written, all messages behind one another; -1 if something does
 * not fit together, -2 if sealing failed.
 */
int64_t tsrt_seal_run(tsrt_cipher *cipher, const uint8_t *head, int32_t head_length,
                      int32_t network, const uint8_t *payload, int64_t payload_length,
                      int32_t mss, int32_t last_flags, const uint8_t *prefix,
                      uint64_t counter, int32_t mtu, uint8_t *out, int64_t room);

/*
 * Open messages for as long as they are authentic and count up, and find runs.
 *
 * data: messages of `size` bytes each; the last may be shorter.
 * plain: takes the plaintexts, each size - 32 bytes behind the last.
 * sizes, items: take one entry a message at most.
 * payload: takes as much as plain.
 * Returns 0, or -1 if something does not fit together.
 */
int tsrt_open_run(tsrt_cipher *cipher, const uint8_t *data, int64_t length,
                  int64_t size, uint64_t counter, uint8_t *plain, uint8_t *payload,
                  int64_t room, int32_t *sizes, tsrt_item *items, int32_t most,
                  tsrt_opened *opened);
