//! Every reader against inputs that are wrong in a million ways: no panic, no memory beyond reason, no error without a
//! word, and what reads back must be what was written.
//!
//!     cargo test --release --test fuzz                                    # a few seconds, as in the suite
//!     KTO_EVAL_FUZZ=10000000 cargo test --release --test fuzz -- --ignored --nocapture
//!
//! An input depends on nothing but `KTO_EVAL_FUZZ_SEED` (0), the reader and its number, whatever the number of threads.
//! `KTO_EVAL_FUZZ_READER=plan` runs one reader with the whole count. What fails is written to `target/fuzz`, with its
//! reader and number; a stack that overflows or an allocation that is refused ends the process and names the same two.
#![cfg(unix)]

mod crash;
mod forge;
mod memory;
mod mutate;
mod place;
mod read;
mod readers;
mod seeds;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kto_eval::base::seed;
use mutate::Mutator;
use place::Place;
use readers::{READERS, Reader};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Inputs that a thread takes at once.
const CHUNK: u64 = 500;
/// As the threads that Rust starts; the program's first one has four times as much.
const STACK: usize = 2 << 20;

#[derive(Clone, Default)]
struct Tally {
    inputs: u64,
    /// Most memory that an input took, bytes.
    memory: usize,
    slowest: Duration,
    seconds: f64,
    findings: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.inputs += other.inputs;
        self.memory = self.memory.max(other.memory);
        self.slowest = self.slowest.max(other.slowest);
        self.seconds += other.seconds;
        self.findings.extend(other.findings);
    }
}

/// Inputs `chunk * CHUNK ..` of a reader.
fn run(which: usize, chunk: u64, most: u64, seeds: &[Vec<u8>], place: &Place) -> Tally {
    let reader = &READERS[which];
    let mut tally = Tally::default();
    for number in chunk * CHUNK..((chunk + 1) * CHUNK).min(most) {
        crash::at(which, number);
        let input = input(reader, number, seeds);
        let started = Instant::now();
        let (outcome, memory) =
            memory::peak(|| catch_unwind(AssertUnwindSafe(|| (reader.read)(place, &input))));
        let took = started.elapsed();
        tally.inputs += 1;
        tally.memory = tally.memory.max(memory);
        tally.slowest = tally.slowest.max(took);
        tally.seconds += took.as_secs_f64();
        let over = memory > (reader.mib << 20) + 64 * input.len();
        let found = match outcome {
            Err(_) => Some(format!("panic: {}", crash::last_words())),
            Ok(()) if over => Some(format!("{} MiB for {} bytes", memory >> 20, input.len())),
            Ok(()) => None,
        };
        if let Some(found) = found {
            let file = crash::keep(reader.name, number, &input);
            tally.findings.push(format!("{} {number}: {found} ({})", reader.name, file.display()));
        }
    }
    tally
}

fn input(reader: &Reader, number: u64, seeds: &[Vec<u8>]) -> Vec<u8> {
    let rng = seed::rng_at(setting("KTO_EVAL_FUZZ_SEED", 0), reader.name, number);
    let mut mutator = Mutator { rng, seeds, words: reader.words };
    (reader.change)(&mut mutator)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// `total` inputs, divided among the readers by their shares.
fn fuzz(total: u64) {
    crash::listen();
    let only = std::env::var("KTO_EVAL_FUZZ_READER").ok();
    let chosen: Vec<usize> =
        (0..READERS.len()).filter(|&i| only.as_ref().is_none_or(|name| READERS[i].name == name)).collect();
    assert!(!chosen.is_empty(), "no reader is called {only:?}");
    let seeds: Vec<Vec<Vec<u8>>> = READERS
        .iter()
        .enumerate()
        .map(|(i, r)| if chosen.contains(&i) { (r.seeds)() } else { vec![] })
        .collect();
    let shares: u64 = chosen.iter().map(|&i| READERS[i].share).sum();
    let of = |i: usize| (total * READERS[i].share).div_ceil(shares);
    let jobs: Vec<(usize, u64)> =
        chosen.iter().flat_map(|&i| (0..of(i).div_ceil(CHUNK)).map(move |chunk| (i, chunk))).collect();
    let (next, tallies) = (AtomicUsize::new(0), Mutex::new(vec![Tally::default(); READERS.len()]));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let work = || {
                let place = Place::new();
                while let Some(&(which, chunk)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tally = run(which, chunk, of(which), &seeds[which], &place);
                    tallies.lock().unwrap()[which].add(tally);
                }
            };
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).unwrap();
        }
    });
    let tallies = tallies.into_inner().unwrap();
    report(&tallies);
    let findings: Vec<&String> = tallies.iter().flat_map(|t| &t.findings).collect();
    assert!(findings.is_empty(), "{} findings, such as\n{}", findings.len(), {
        let some: Vec<&str> = findings.iter().take(40).map(|f| f.as_str()).collect();
        some.join("\n")
    });
}

/// A table, as `reports/robustness.md` has it.
fn report(tallies: &[Tally]) {
    println!("| reader | inputs | findings | µs an input | slowest (ms) | most memory (MiB) |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (reader, tally) in READERS.iter().zip(tallies).filter(|(_, t)| t.inputs > 0) {
        println!(
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} |",
            reader.name,
            tally.inputs,
            tally.findings.len(),
            1e6 * tally.seconds / tally.inputs as f64,
            1e3 * tally.slowest.as_secs_f64(),
            tally.memory as f64 / f64::from(1 << 20)
        );
    }
    println!("{} inputs", tallies.iter().map(|t| t.inputs).sum::<u64>());
}

#[test]
fn every_reader_takes_whatever_comes() {
    fuzz(20_000);
}

#[test]
#[ignore = "an hour: KTO_EVAL_FUZZ=10000000 cargo test --release --test fuzz -- --ignored --nocapture"]
fn every_reader_takes_ten_million_inputs() {
    fuzz(setting("KTO_EVAL_FUZZ", 10_000_000));
}

/// Good inputs are good: else the rest would test nothing but the first check.
#[test]
fn the_inputs_that_others_are_made_from_are_read() {
    let place = Place::new();
    for reader in READERS {
        for input in (reader.seeds)() {
            (reader.read)(&place, &input);
        }
    }
}
