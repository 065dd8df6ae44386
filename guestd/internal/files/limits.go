package files

import "time"

const (
	// blockBytes is the step in which files are read and written: smaller steps cost
	// half of the throughput under gVisor.
	blockBytes = 256 << 10
	// maxTransfers bounds the buffers held at once: 128 x 2 blocks = 64 MiB at worst.
	maxTransfers = 128
	// transferWait is how long a request waits for one of them before it gets 429.
	transferWait = 30 * time.Second

	// maxParts bounds one multipart request; each part keeps ~200 bytes until the reply.
	maxParts = 10_000
	// maxInflatedBytes stops a compressed body that would fill any disk.
	maxInflatedBytes = 16 << 30
	// maxComposeBytes bounds the JSON body of /files/compose.
	maxComposeBytes = 4 << 20
	// maxComposeParts bounds its list.
	maxComposeParts = 10_000

	// maxDrainBytes and maxDrainTime bound what is read and thrown away after a failed
	// upload: a client that is still sending would otherwise see a reset, not the reason.
	maxDrainBytes = 1 << 30
	maxDrainTime  = 20 * time.Second
	// specialWriteTimeout ends a write into a FIFO or device that takes nothing.
	specialWriteTimeout = 30 * time.Second

	// maxMetadataKeyBytes: "user.e2b." and the key make up a name of at most 255 bytes.
	maxMetadataKeyBytes = 246
	// maxMetadataBytes is the sum over keys and values; more does not fit into one ext4 block.
	maxMetadataBytes = 4096
	// maxShownMetadataBytes bounds what Stat and ListDir show of attributes that were set
	// from inside, where one value may have 64 KiB.
	maxShownMetadataBytes = 64 << 10

	// maxListEntries and maxListBytes bound one ListDir reply; its JSON is about three
	// times as large in memory.
	maxListEntries = 200_000
	maxListBytes   = 48 << 20

	// smallFileBytes: a file without a usable size is buffered up to here to give it one.
	smallFileBytes = 256 << 10
	// minGzipBytes: below, the gzip header and the extra work outweigh any gain.
	minGzipBytes = 1 << 10
	// racyAge: a file younger than this may change again within one clock tick of the
	// file system, so its ETag is weak.
	racyAge = 2 * time.Second
)
