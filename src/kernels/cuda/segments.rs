//! Trees of segments as the tiles that attention's blocks work on.

use std::ops::Range;

use super::gpu::int;
use crate::base::error::Result;
use crate::kernels::attention::Tree;

/// Rows of a tile, as in `attention.cuh`.
const ROWS: usize = 64;

/// Structures of i32, as many as there are blocks, in memory of u32.
pub(super) struct Table {
    pub numbers: Vec<u32>,
    pub len: usize,
}

impl Table {
    fn new() -> Self {
        Self { numbers: Vec::new(), len: 0 }
    }
    fn push(&mut self, row: &[usize]) -> Result<()> {
        for &n in row {
            self.numbers.push(int(n)?.cast_unsigned());
        }
        self.len += 1;
        Ok(())
    }
}

fn cuts(range: &Range<usize>) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let (start, end) = (range.start, range.end);
    (start..end).step_by(ROWS).map(move |row| (row, ROWS.min(end - row)))
}

/// `Tile {row, n, at, past_row, past, own}` of every ROWS queries; those with the most keys first, so that the
/// last blocks to start are short ones.
pub(super) fn query_tiles(trees: &[Tree]) -> Result<Table> {
    let mut tiles = Vec::new();
    for Tree { root, branches } in trees {
        for (row, n) in cuts(root) {
            tiles.push([row, n, row - root.start, 0, 0, root.start]);
        }
        for own in branches {
            for (row, n) in cuts(own) {
                tiles.push([row, n, root.len() + row - own.start, root.start, root.len(), own.start]);
            }
        }
    }
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile[2]));
    let mut table = Table::new();
    tiles.iter().try_for_each(|tile| table.push(tile))?;
    Ok(table)
}

/// `KeyTile {row, n, at, begin, end}` of every ROWS keys, and the `Viewer {row, n, at}`s that they name: a root's
/// keys are seen by the root and by every branch, a branch's by itself. Those that most rows see come first, as in
/// [`query_tiles`].
pub(super) fn key_tiles(trees: &[Tree]) -> Result<(Table, Table)> {
    let (mut tiles, mut viewers) = (Vec::new(), Table::new());
    let mut add = |keys: &Range<usize>, at: usize, seen_by: &[(&Range<usize>, usize)]| -> Result<()> {
        let begin = viewers.len;
        for (rows, at) in seen_by.iter().filter(|(rows, _)| !rows.is_empty()) {
            viewers.push(&[rows.start, rows.len(), *at])?;
        }
        let after: usize = seen_by.iter().map(|(rows, first)| first + rows.len()).sum();
        for (row, n) in cuts(keys) {
            let here = at + row - keys.start;
            // Rows at or after the tile; those of the keys' own segment begin inside it.
            let seeing = after - seen_by.iter().map(|(_, first)| here.max(*first)).sum::<usize>();
            tiles.push((seeing, [row, n, here, begin, viewers.len]));
        }
        Ok(())
    };
    for Tree { root, branches } in trees {
        let mut seen_by = vec![(root, 0)];
        seen_by.extend(branches.iter().map(|own| (own, root.len())));
        add(root, 0, &seen_by)?;
        for own in branches {
            add(own, root.len(), &[(own, root.len())])?;
        }
    }
    tiles.sort_by_key(|(seeing, _)| std::cmp::Reverse(*seeing));
    let mut table = Table::new();
    tiles.iter().try_for_each(|(_, tile)| table.push(tile))?;
    Ok((table, viewers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest blocks start first, counted pair by pair.
    #[test]
    fn key_tiles_come_by_the_rows_that_see_them() {
        let trees = [
            Tree { root: 0..10, branches: vec![] },
            Tree { root: 10..150, branches: vec![150..150, 150..230, 230..235] },
            Tree { root: 235..600, branches: vec![] },
        ];
        let (tiles, viewers) = key_tiles(&trees).unwrap();
        let seeing = |tile: &[u32]| -> u32 {
            let viewers = viewers.numbers.chunks(3).take(tile[4] as usize).skip(tile[3] as usize);
            viewers.map(|v| (v[2]..v[2] + v[1]).filter(|at| *at >= tile[2]).count() as u32).sum()
        };
        let found: Vec<u32> = tiles.numbers.chunks(5).map(seeing).collect();
        assert_eq!(found.len(), tiles.len);
        assert_eq!(found.iter().max(), Some(&365));
        assert!(found.is_sorted_by(|a, b| a >= b), "{found:?}");
        let rows: u32 = tiles.numbers.chunks(5).map(|tile| tile[1]).sum();
        assert_eq!(rows, 600);
    }
}
