//! Changes that keep a file's frame whole, so that what stands inside it is read at all.

use std::collections::HashMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use kto_eval::base::hash::Hasher;
use safetensors::SafeTensors;

use crate::mutate::Mutator;

/// Rows that are changed and then packed, or packed and then changed.
pub fn gzip(m: &mut Mutator<'_>) -> Vec<u8> {
    let rows = m.seed();
    if m.one_in(2) {
        let rows = m.text(rows);
        return pack(&rows);
    }
    let packed = pack(&rows);
    let packed = m.bytes(packed);
    // Two members in one file, at times.
    if m.one_in(8) { [pack(&rows), packed].concat() } else { packed }
}

fn pack(rows: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(rows).unwrap();
    encoder.finish().unwrap()
}

/// Bytes anywhere, or in the footer alone, or of the footer's length; the marks at both ends mostly stay.
pub fn parquet(m: &mut Mutator<'_>) -> Vec<u8> {
    let seed = m.seed();
    let end = seed.len() - 8;
    let footer = u32::from_le_bytes(seed[end..end + 4].try_into().unwrap()) as usize;
    let (head, rest) = seed.split_at(end - footer);
    match m.below(4) {
        0 => m.bytes(seed),
        1 => {
            let head = m.bytes(head[4..].to_vec());
            [&b"PAR1"[..], &head, rest].concat()
        }
        _ => {
            let footer = m.bytes(rest[..footer].to_vec());
            let length = (footer.len() as u32).to_le_bytes();
            [head, &footer, &length, b"PAR1"].concat()
        }
    }
}

/// The JSON header as a text, with the length before it put right again; or bytes anywhere.
pub fn safetensors(m: &mut Mutator<'_>) -> Vec<u8> {
    let seed = m.seed();
    if m.one_in(4) {
        return m.bytes(seed);
    }
    let length = u64::from_le_bytes(seed[..8].try_into().unwrap()) as usize;
    let (header, data) = seed[8..].split_at(length);
    let header = m.text(header.to_vec());
    [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
}

/// As [`safetensors`]; or the state within it changed, and the checksum made to fit.
pub fn checkpoint(m: &mut Mutator<'_>) -> Vec<u8> {
    if m.one_in(3) {
        return safetensors(m);
    }
    let seed = m.seed();
    let (_, header) = SafeTensors::read_metadata(&seed).unwrap();
    let mut metadata: HashMap<String, String> = header.metadata().clone().unwrap();
    let state = m.text(metadata["state"].clone().into_bytes());
    let state = String::from_utf8_lossy(&state).into_owned();
    let file = SafeTensors::deserialize(&seed).unwrap();
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    // At times with a tensor less.
    if m.one_in(4) {
        let gone = m.below(tensors.len());
        tensors.remove(gone);
    }
    let mut hasher = Hasher::new("kto-eval/checkpoint").part(state.as_bytes());
    for (name, view) in &tensors {
        hasher = hasher.part(name.as_bytes()).part(view.data());
    }
    metadata.insert("checksum".to_owned(), hasher.hex());
    metadata.insert("state".to_owned(), state);
    safetensors::serialize(tensors, Some(metadata)).unwrap()
}
