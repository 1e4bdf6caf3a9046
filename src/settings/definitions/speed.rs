//! Concurrency, sizes, retries and time.

use crate::settings::definitions::{Group, SYNC};
use crate::settings::kind::Kind;
use crate::settings::setting::Setting;
use crate::tree::digest::{LARGEST_PART, SMALLEST_PART};

pub(super) const GROUP: Group = Group {
    title: "Speed",
    about: "",
    settings: &[
        Setting::new(
            "batch_size",
            Kind::Number(1, 256, |parts, files| {
                // In range, so that it fits.
                let files = usize::try_from(files).unwrap_or(usize::MAX);
                parts.engine = parts.engine.clone().workers(files);
                parts.rescan(|rescan| rescan.batch_size(files));
            }),
            "Files, threads and connections at a time",
        )
        .on(&["sync", "plan", "verify", "rebuild"])
        .default("10")
        .example("20"),
        Setting::new(
            "parts_in_flight",
            Kind::Number(1, 256, |parts, count| {
                parts.rescan(|rescan| rescan.parts_in_flight(usize::try_from(count).unwrap_or(usize::MAX)));
            }),
            "Parts of large files at a time [default: --batch-size]",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .rare()
        .example("4")
        .detail("At most `batch_size`."),
        Setting::new(
            "chunk_size",
            Kind::Size(4096, 1 << 20, |parts, bytes| {
                parts.s3(|s3| s3.chunk_size(usize::try_from(bytes).unwrap_or(usize::MAX)));
            }),
            "Bytes read and sent at a time",
        )
        .on(&["sync"])
        .accepted_by(&["plan", "verify", "rebuild"])
        .default("8KiB")
        .rare()
        .example("64KiB")
        .detail("64KiB saves a quarter of the CPU."),
        Setting::new(
            "part_size",
            Kind::Size(SMALLEST_PART, LARGEST_PART, |parts, bytes| parts.s3(|s3| s3.part_size(bytes))),
            "Size of the parts of a multipart upload",
        )
        .on(SYNC)
        .accepted_by(&["verify", "rebuild"])
        .default("16MiB")
        .example("32MiB"),
        Setting::new(
            "part_threshold",
            Kind::Size(SMALLEST_PART, LARGEST_PART, |parts, bytes| parts.s3(|s3| s3.part_threshold(bytes))),
            "Larger files become multipart uploads",
        )
        .on(SYNC)
        .accepted_by(&["verify", "rebuild"])
        .default("16MiB")
        .rare()
        .example("64MiB"),
        Setting::new(
            "largest_object",
            Kind::Size(1, u64::MAX, |parts, bytes| parts.s3(|s3| s3.largest_object(bytes))),
            "Largest object that the store takes",
        )
        .on(SYNC)
        .accepted_by(&["rebuild"])
        .default("5TiB")
        .rare()
        .example("5GiB")
        .detail("A larger file is an error that names it; it is not read."),
        Setting::new(
            "retries",
            Kind::Number(0, u64::MAX, |parts, count| {
                let attempts = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
                parts.retry = parts.retry.with_attempts(attempts);
            }),
            "Retries of a failed request",
        )
        .on(&["sync", "plan", "verify", "rebuild"])
        .default("5")
        .example("2"),
        Setting::new(
            "longest_wait",
            Kind::Time(0, 3600, |parts, time| parts.retry.cap = time),
            "Longest wait before a retry, unless the server asks for more",
        )
        .on(&["sync", "plan", "verify", "rebuild"])
        .default("20s")
        .rare()
        .example("5s"),
        Setting::new(
            "throttled_for",
            Kind::Time(0, 3600, |parts, time| parts.retry.throttled_for = time),
            "Retry what the store throttles (429, 503, SlowDown) for this long",
        )
        .on(&["sync", "plan", "verify", "rebuild"])
        .default("1m")
        .rare()
        .example("5m"),
        Setting::new(
            "deadline",
            Kind::Time(0, u64::MAX, |parts, after| parts.run(|run| run.deadline(after))),
            "Stop after this long, such as 10m; the rest stays pending",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .example("10m"),
    ],
};
