//! TensorBoard event files: scalars as `Event` messages of TensorFlow's `event.proto`, framed as TFRecords.
//!
//! A record is its length (u64, little endian), the masked CRC-32C of those eight bytes, the message, and the
//! masked CRC-32C of the message. CRC-32C: Castagnoli polynomial 0x1EDC6F41, reflected; masked: rotated right by 15
//! bits, plus 0xa282ead8 (tensorflow/core/lib/io/record_writer.h, lib/hash/crc32c.h).

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::base::error::{Context, Result};

/// TensorBoard takes a file for one of events by this part of its name.
const NAME: &str = "events.out.tfevents.0.kto-eval";
const VERSION: &str = "brain.Event:2";
const MASK: u32 = 0xa282_ead8;

/// The events of one run: a folder with one file in it.
pub struct EventFile {
    out: BufWriter<File>,
    last: u64,
}

impl EventFile {
    /// The file in `dir`, with what an earlier attempt at the run left there of the steps before `step`: that is what a
    /// run that goes on from a checkpoint keeps, and of one that begins anew (`step` 1) nothing. Events whose first tag is
    /// `again` are left out too: they will be written once more.
    ///
    /// `seconds`: now, since 1970.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn open(dir: &Path, seconds: f64, step: u64, again: &dyn Fn(&str) -> bool) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let path = dir.join(NAME);
        let earlier = fs::read(&path).unwrap_or_default();
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let mut events = Self { out: BufWriter::new(file), last: 0 };
        let mut message = double(1, seconds);
        message.extend(bytes(3, VERSION.as_bytes()));
        events.record(&message)?;
        for (at, message) in messages(&earlier).filter_map(|m| Some((step_of(m)?, m))) {
            if at < step {
                events.last = events.last.max(at);
                if !first_tag(message).is_some_and(again) {
                    events.record(message)?;
                }
            }
        }
        Ok(events)
    }

    /// The last step that was kept; 0: none.
    pub fn last_step(&self) -> u64 {
        self.last
    }

    /// One event with these scalars; those that are not finite are left out.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn scalars(&mut self, step: u64, seconds: f64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values.iter().filter(|(_, v)| v.is_finite()) {
            let mut entry = bytes(1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            summary.extend(bytes(1, &entry));
        }
        let mut message = double(1, seconds);
        message.push(2 << 3);
        message.extend(varint(step));
        message.extend(bytes(5, &summary));
        self.record(&message)
    }

    /// # Errors
    /// A disk that is full.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().context("writing TensorBoard events")
    }

    fn record(&mut self, message: &[u8]) -> Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        let parts: [&[u8]; 4] =
            [&length, &masked_crc(&length).to_le_bytes(), message, &masked_crc(message).to_le_bytes()];
        parts.iter().try_for_each(|part| self.out.write_all(part)).context("writing TensorBoard events")
    }
}

/// The whole records of a file; a writer that was killed leaves half a one.
fn messages(mut file: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u64::from_le_bytes(file.get(..8)?.try_into().ok()?)).ok()?;
        let message = file.get(12..)?.get(..length)?;
        file = file.get(16 + length..)?;
        Some(message)
    })
}

/// The step of an event as this program writes them: the time (nine bytes), then the step. The version has none.
fn step_of(message: &[u8]) -> Option<u64> {
    Some(number(message.get(9..)?, 2 << 3)?.0)
}

/// The tag of an event's first scalar: summary, its first value, and that one's tag.
fn first_tag(message: &[u8]) -> Option<&str> {
    let (_, mut rest) = number(message.get(9..)?, 2 << 3)?;
    let mut length = 0;
    for field in [5, 1, 1] {
        (length, rest) = number(rest, field << 3 | 2)?;
    }
    std::str::from_utf8(rest.get(..usize::try_from(length).ok()?)?).ok()
}

/// The varint after this key, and what follows it.
fn number(message: &[u8], key: u8) -> Option<(u64, &[u8])> {
    let rest = message.strip_prefix(&[key])?;
    let mut value = 0u64;
    for (i, byte) in rest.iter().enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, &rest[i + 1..]));
        }
    }
    None
}

/// A field of wire type 1.
fn double(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

/// A field of wire type 2.
fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// The masked CRC-32C of a record's part.
pub fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(MASK)
}

fn crc32c(data: &[u8]) -> u32 {
    // 0x1EDC6F41, bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !data.iter().fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4.
    #[test]
    fn crc_32c_of_the_rfc() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn numbers_of_any_size_are_varints() {
        assert_eq!(varint(1), [1]);
        assert_eq!(varint(300), [0xac, 2]);
        assert_eq!(varint(u64::MAX).len(), 10);
        for step in [0, 1, 300, u64::MAX] {
            let event = [double(1, 9.0), vec![2 << 3], varint(step), bytes(5, b"x")].concat();
            assert_eq!(step_of(&event), Some(step));
        }
        assert_eq!(step_of(&[double(1, 9.0), bytes(3, VERSION.as_bytes())].concat()), None);
    }
}
