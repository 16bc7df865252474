//! Matrix products, cut into pieces for the threads of the pool.
//!
//! `gemm` has threads of its own, which meet after each block of depth and pack one side alone; pieces that are
//! whole products meet once, and a thread that is done takes another.

use super::real::Real;

/// A matrix in memory: where it begins and how far apart its rows and columns are (in elements).
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// `rows × cols` with rows `stride` apart.
    pub fn new(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(), "a view beyond its data");
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }
    pub fn transposed(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
    /// The rows before `at`, and the others.
    fn split_rows(self, at: usize) -> (Self, Self) {
        let rest = &self.data[at * self.row_stride..];
        (Self { rows: at, ..self }, Self { data: rest, rows: self.rows - at, ..self })
    }
    fn split_cols(self, at: usize) -> (Self, Self) {
        let (left, right) = self.transposed().split_rows(at);
        (left.transposed(), right.transposed())
    }
}

/// `out = a·b`, or `out += a·b`, on `threads` threads; `out` is row-major with rows `stride` apart.
pub fn matmul<T: Real>(
    out: &mut [T],
    stride: usize,
    accumulate: bool,
    a: View<'_, T>,
    b: View<'_, T>,
    threads: usize,
) {
    assert_eq!(a.cols, b.rows, "inner sizes of a matrix product");
    let (m, n) = (a.rows, b.cols);
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * stride + n <= out.len() && n <= stride, "the product does not fit its place");
    let place = Place { out: out.as_mut_ptr(), stride, accumulate };
    // SAFETY: the assertion above holds every access to `out` inside it, and it is borrowed mutably.
    unsafe { write(place, a, b, pieces(threads)) }
}

/// a·b in memory of its own, row-major; nothing is written twice.
pub fn product<T: Real>(a: View<'_, T>, b: View<'_, T>, threads: usize) -> Vec<T> {
    assert_eq!(a.cols, b.rows, "inner sizes of a matrix product");
    let (m, n) = (a.rows, b.cols);
    if m == 0 || n == 0 || a.cols == 0 {
        return vec![T::ZERO; m * n];
    }
    let mut out = Vec::with_capacity(m * n);
    let place = Place { out: out.as_mut_ptr(), stride: n, accumulate: false };
    // SAFETY: `out` has room for m rows of n numbers, all of which the product writes and none of which it
    // reads, since it does not accumulate.
    unsafe {
        write(place, a, b, pieces(threads));
        out.set_len(m * n);
    }
    out
}

/// Where a product, or a piece of one, is written.
#[derive(Clone, Copy)]
pub(super) struct Place<T> {
    pub out: *mut T,
    pub stride: usize,
    pub accumulate: bool,
}
// SAFETY: the pieces of a product are written at disjoint places.
unsafe impl<T: Send> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Place<T> {}

impl<T> Place<T> {
    fn offset(self, by: usize) -> Self {
        Self { out: self.out.wrapping_add(by), ..self }
    }
}

/// Multiply-adds that are done before another thread would have begun.
const ALONE: usize = 48 * 48 * 256;
/// What `gemm` computes at a time: pieces are multiples of it.
const TILE: (usize, usize) = (6, 16);
/// `gemm` sums products of at most 64 × 64 in another order; pieces stay above it, so that a row has the same bits
/// however a product is cut.
const LEAST: (usize, usize) = (12, 80);

/// Two for each thread, so that a thread that is held up leaves one to another.
fn pieces(threads: usize) -> usize {
    if threads < 2 { 1 } else { 2 * threads }
}

enum Cut {
    Rows(usize),
    Cols(usize),
}

/// Where a product of these two is cut, for `pieces` pieces.
///
/// By columns where `a` lies in memory as it is read, which `gemm` then does not pack; each piece packs its own
/// part of `b`. Else the longer side, since each piece packs all of the other.
fn cut<T>(a: View<'_, T>, b: View<'_, T>, pieces: usize) -> Option<Cut> {
    let (m, n) = (a.rows, b.cols);
    if pieces < 2 || m * n * a.cols < ALONE {
        return None;
    }
    let at = |size: usize, tile: usize, least: usize| {
        let at = (size * (pieces / 2) / pieces).next_multiple_of(tile);
        (at >= least && size >= at + least).then_some(at)
    };
    let rows = at(m, TILE.0, LEAST.0).map(Cut::Rows);
    let cols = at(n, TILE.1, LEAST.1).map(Cut::Cols);
    if a.col_stride == 1 || n > m { cols.or(rows) } else { rows.or(cols) }
}

/// # Safety
/// `place.out` must be valid for writes (and, if it accumulates, reads) of `a.rows` rows of `b.cols` numbers
/// `place.stride` apart, and lie apart from both factors.
unsafe fn write<T: Real>(place: Place<T>, a: View<'_, T>, b: View<'_, T>, pieces: usize) {
    let (first, second) = match cut(a, b, pieces) {
        // SAFETY: the caller's promise.
        None => return unsafe { write_alone(place, a, b) },
        Some(Cut::Rows(at)) => {
            let (top, bottom) = a.split_rows(at);
            ((place, top, b), (place.offset(at * place.stride), bottom, b))
        }
        Some(Cut::Cols(at)) => {
            let (left, right) = b.split_cols(at);
            ((place, a, left), (place.offset(at), a, right))
        }
    };
    let piece = |(place, a, b), pieces| {
        move || {
            // SAFETY: rows or columns of the caller's place, each in one of the two parts.
            unsafe { write(place, a, b, pieces) }
        }
    };
    rayon::join(piece(first, pieces / 2), piece(second, pieces - pieces / 2));
}

/// # Safety
/// As [`write`].
unsafe fn write_alone<T: Real>(place: Place<T>, a: View<'_, T>, b: View<'_, T>) {
    // SAFETY: `View` holds every access to the factors inside their slices, the caller answers for `place`, and T
    // is f32 or f64, which `gemm` knows.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            place.out,
            1,
            place.stride as isize,
            place.accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers, whose sums are exact in any order.
    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7 + seed) % 13) as f32 - 6.0).collect()
    }

    #[test]
    fn pieces_make_up_the_product() {
        for (m, n, k) in [(430, 512, 70), (100, 700, 90), (700, 100, 90), (13, 1000, 64), (1000, 65, 64)] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 5));
            let (rows, cols) = (View::new(&a, m, k, k), View::new(&b, k, n, n));
            let wanted = product(rows, cols, 1);
            for threads in 2..6 {
                assert_eq!(product(rows, cols, threads), wanted, "{m} × {n} on {threads}");
                // With a wider stride, onto what stands there, out of transposed sides.
                let across: Vec<f32> = (0..k * m).map(|i| a[i % m * k + i / m]).collect();
                let mut out = vec![1.0; m * (n + 3)];
                matmul(&mut out, n + 3, true, View::new(&across, k, m, m).transposed(), cols, threads);
                for (out, wanted) in out.chunks_exact(n + 3).zip(wanted.chunks_exact(n)) {
                    assert!(out[..n].iter().zip(wanted).all(|(o, w)| *o == w + 1.0));
                    assert_eq!(out[n..], [1.0; 3], "what lies between the rows is left alone");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_however_the_product_is_cut() {
        let (m, n, k) = (211, 333, 1376);
        let noise = |n: usize, seed: f32| (0..n).map(|i| (i as f32 * seed).sin()).collect::<Vec<_>>();
        let (a, b) = (noise(m * k, 0.37), noise(n * k, 0.71));
        let b = View::new(&b, n, k, k).transposed();
        let wanted = product(View::new(&a, m, k, k), b, 1);
        for (rows, threads) in [(m, 2), (m, 3), (m, 16), (100, 2), (24, 4), (4, 2)] {
            assert_eq!(
                product(View::new(&a, rows, k, k), b, threads),
                wanted[..rows * n],
                "{rows}, {threads}"
            );
        }
    }
}
