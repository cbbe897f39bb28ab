// What a worker on the daemon's host and the daemon say to each other so that the worker
// can read KV where it lies: messages over a socket, and the layout of shared memory.
//
// The socket is <runtime_dir>/<namespace>.local.sock, SOCK_SEQPACKET: a message is one
// packet, a struct of this file, at most kMessageBytesMax long, with descriptors beside
// it (SCM_RIGHTS). Numbers are the machine's own: both ends are on it.
//
//   worker                                       daemon
//   Hello (version, session)          -->
//                                     <--        Challenge (nonce)
//   Proof (the nonce)                 -->        by its pidfd the daemon now knows that
//   it
//                                                watches the process that it talks to
//                                     <--        Welcome + [epochs, readers, staging]
//   MapSequence                       -->
//                                     <--        SequenceMapped + [locations, heat]
//   MapRegion                         -->
//                                     <--        RegionMapped + [region]
//   LoadPages                         -->
//                                     <--        PagesLoaded
//                                     <--        RegionGone
//   RegionUnmapped                    -->
//   Detach, after it unmapped all     -->
//
// A request's answer, or Failed, carries its number; answers may come in any order. What
// isn't as described here ends the connection: the daemon says Failed first, with
// request 0. A connection that ends without Detach leaves everything held until the
// process exits.
//
// Finding a row:   locations[chunk][layer] -> slot of a block's abstracts
//                    in it, at PageLocationsOffset: [kv_head] -> slot of a page
// A slot is where Location says. All of it is read between Epochs::Enter and Leave, and
// is only good until Leave; but bytes of a slot may be copied out. If SequenceHeader's
// generation is still what it was at an earlier Enter, then so are the locations of
// chunks that were there before. A page without a location is on disk: LoadPages.

#ifndef KVTIER_PROTO_ATTACH_ATTACH_H_
#define KVTIER_PROTO_ATTACH_ATTACH_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace kvtier::attach {

inline constexpr uint32_t kMagic = 0x6b767431;  // "kvt1"
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kMessageBytesMax = size_t{64} << 10;
inline constexpr size_t kNonceBytes = 16;
inline constexpr size_t kDescriptorsMax = 3;  // beside one message
inline constexpr uint32_t kReaders = 64;
// Requests of one worker that are not answered yet.
inline constexpr uint32_t kRequestsMax = 64;

enum class MessageKind : uint32_t {
  // The worker's.
  kHello = 1,
  kProof = 2,
  kMapSequence = 3,
  kMapRegion = 4,
  kLoadPages = 5,
  kRegionUnmapped = 6,
  kDetach = 7,
  // The daemon's.
  kChallenge = 101,
  kWelcome = 102,
  kSequenceMapped = 103,
  kRegionMapped = 104,
  kPagesLoaded = 105,
  kRegionGone = 106,
  kFailed = 107,
};

struct MessageHeader {
  MessageKind kind;
  uint32_t bytes;    // of the message, this included; the packet's length
  uint64_t request;  // the worker's number, from 1; 0 where nothing is asked for
};

struct Hello {
  static constexpr MessageKind kKind = MessageKind::kHello;
  MessageHeader header;
  uint32_t magic;
  uint32_t version;
  uint64_t session;  // of this namespace; one attachment each
};

struct Challenge {
  static constexpr MessageKind kKind = MessageKind::kChallenge;
  MessageHeader header;
  uint8_t nonce[kNonceBytes];
};

// Sent by the process that connected: the kernel tells the daemon who sends.
struct Proof {
  static constexpr MessageKind kKind = MessageKind::kProof;
  MessageHeader header;
  uint8_t nonce[kNonceBytes];
};

// Descriptors: EpochPage (read-only), ReaderPage, staging. None can be shrunk or grown.
struct Welcome {
  static constexpr MessageKind kKind = MessageKind::kWelcome;
  MessageHeader header;
  uint64_t staging_bytes;
  uint32_t chunk_tokens;
  uint32_t readers;  // words in ReaderPage that count
};

// Asks for the tables of an open sequence, with room for so many chunks at least. Asked
// again when it has outgrown them; the former tables get no further chunks.
struct MapSequence {
  static constexpr MessageKind kKind = MessageKind::kMapSequence;
  MessageHeader header;
  uint64_t sequence;
  uint64_t chunks;
};

// Descriptors: locations (read-only), heat.
struct SequenceMapped {
  static constexpr MessageKind kKind = MessageKind::kSequenceMapped;
  MessageHeader header;
  uint64_t chunks_max;
  uint32_t layers;
  uint32_t pages;  // of a chunk
};

struct MapRegion {
  static constexpr MessageKind kKind = MessageKind::kMapRegion;
  MessageHeader header;
  uint32_t region;
  uint32_t padding;
};

// Descriptor: the region, read-only.
struct RegionMapped {
  static constexpr MessageKind kKind = MessageKind::kRegionMapped;
  MessageHeader header;
  uint32_t region;
  uint32_t padding;
  uint64_t slot_bytes;
  uint64_t region_bytes;
};

// Nothing in the region can be found any more: unmap it and say RegionUnmapped. Until
// then the namespace is charged for it.
struct RegionGone {
  static constexpr MessageKind kKind = MessageKind::kRegionGone;
  MessageHeader header;
  uint32_t region;
  uint32_t padding;
};

struct RegionUnmapped {
  static constexpr MessageKind kKind = MessageKind::kRegionUnmapped;
  MessageHeader header;
  uint32_t region;
  uint32_t padding;
};

struct PageOfLayer {
  uint32_t kv_head;
  uint32_t chunk;
};

// Asks for pages of one layer that have no location. Followed by `count` PageOfLayer.
struct LoadPages {
  static constexpr MessageKind kKind = MessageKind::kLoadPages;
  MessageHeader header;
  uint64_t sequence;
  uint32_t layer;
  uint32_t count;
};
inline constexpr uint32_t kLoadPagesMax =
    (kMessageBytesMax - sizeof(LoadPages)) / sizeof(PageOfLayer);

// They have locations now, unless memory is so short that they lost them again.
struct PagesLoaded {
  static constexpr MessageKind kKind = MessageKind::kPagesLoaded;
  MessageHeader header;
  uint64_t disk_bytes;
};

struct Detach {
  static constexpr MessageKind kKind = MessageKind::kDetach;
  MessageHeader header;
};

// Followed by `text_bytes` of a message for people.
struct Failed {
  static constexpr MessageKind kKind = MessageKind::kFailed;
  MessageHeader header;
  int32_t code;  // a google.rpc.Code
  uint32_t text_bytes;
};

// Written by the daemon.
struct EpochPage {
  std::atomic<uint64_t> epoch;
};

// Written by the worker: each reader's word on a line of its own.
struct ReaderPage {
  struct Reader {
    alignas(64) std::atomic<uint64_t> epoch;
  };
  Reader readers[kReaders];
};

// Of a sequence's locations, written by the daemon. At kLocationsOffset follow
// [chunks_max][layers] words: where the block's abstracts are.
struct SequenceHeader {
  // Changes, by going up, when something of the first `chunks` became another or went.
  std::atomic<uint64_t> generation;
  // Sealed ones that are in the table.
  std::atomic<uint64_t> chunks;
};
inline constexpr size_t kLocationsOffset = 4096;

// A worker adds to a page's heat byte, up to kHeatMax, when a query selects it; the
// daemon takes it back to 0. Bytes are [chunks_max][pages], layer by layer, kv heads in
// order.
inline constexpr uint8_t kHeatMax = 255;

}  // namespace kvtier::attach

#endif  // KVTIER_PROTO_ATTACH_ATTACH_H_
