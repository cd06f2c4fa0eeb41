//! A grid of how much each part of a picture departs, and where it lies in the picture.

/// A grid of shares, row by row; their mean is the norm of the residual.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    pub height: usize,
    pub width: usize,
    pub cells: Vec<f32>,
}

impl Heat {
    /// The hottest cell: row, column, share.
    pub fn hottest(&self) -> Option<(usize, usize, f32)> {
        let best = self.cells.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        Some((best.0 / self.width, best.0 % self.width, *best.1))
    }

    /// Between the centres of the cells, linearly; `u` and `v` are shares of width and height.
    pub fn between(&self, u: f64, v: f64) -> f32 {
        let at = |share: f64, cells: usize| {
            let centre = (share * cells as f64 - 0.5).clamp(0.0, cells.saturating_sub(1) as f64);
            let low = centre as usize;
            (low, (low + 1).min(cells - 1), (centre - low as f64) as f32)
        };
        let ((x0, x1, x), (y0, y1, y)) = (at(u, self.width), at(v, self.height));
        let row = |y: usize| self.cells[y * self.width + x0] * (1.0 - x) + self.cells[y * self.width + x1] * x;
        row(y0) * (1.0 - y) + row(y1) * y
    }

    /// The first and last row and column, inclusive, of the cells that are connected with the hottest, by sides or corners,
    /// and at least half as hot, counted from the median; None where nothing is hot.
    pub fn hot_region(&self) -> Option<([usize; 2], [usize; 2])> {
        let (row, column, hottest) = self.hottest().filter(|(.., share)| *share > 0.0)?;
        let mut sorted = self.cells.clone();
        sorted.sort_by(f32::total_cmp);
        let floor = sorted[sorted.len() / 2].max(0.0);
        let least = floor + 0.5 * (hottest - floor);
        let (mut rows, mut columns) = ([row; 2], [column; 2]);
        let mut seen = vec![false; self.cells.len()];
        seen[row * self.width + column] = true;
        let mut open = vec![(row, column)];
        while let Some((row, column)) = open.pop() {
            rows = [rows[0].min(row), rows[1].max(row)];
            columns = [columns[0].min(column), columns[1].max(column)];
            for y in row.saturating_sub(1)..(row + 2).min(self.height) {
                for x in column.saturating_sub(1)..(column + 2).min(self.width) {
                    let at = y * self.width + x;
                    if !seen[at] && self.cells[at] >= least {
                        seen[at] = true;
                        open.push((y, x));
                    }
                }
            }
        }
        Some((rows, columns))
    }

    /// The heat of a region of a picture.
    pub fn at(self, region: [f64; 4]) -> Placed {
        Placed { heat: self, region }
    }
}

/// A heat and where in a picture it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    pub heat: Heat,
    /// What the network saw: left, top, width, height in pixels of the picture.
    pub region: [f64; 4],
}

impl Placed {
    /// A cell's left, top, width and height in pixels of the picture.
    pub fn cell(&self, row: usize, column: usize) -> [f64; 4] {
        let [left, top, width, height] = self.region;
        let (width, height) = (width / self.heat.width as f64, height / self.heat.height as f64);
        [left + column as f64 * width, top + row as f64 * height, width, height]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hot_region_is_what_hangs_together() {
        let heat = |cells: [f32; 16]| Heat { height: 4, width: 4, cells: cells.to_vec() };
        let cells = [0.0, 1.0, 0.0, 9.0, 0.0, 8.0, 0.0, 0.0, 5.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.5];
        // 9 stands alone; 8 and 5 touch at a corner.
        assert_eq!(heat(cells).hot_region(), Some(([0, 0], [3, 3])));
        let cells = cells.map(|v| {
            if v == 9.0 {
                0.0
            } else if v == 8.5 {
                1.0
            } else {
                v
            }
        });
        assert_eq!(heat(cells).hot_region(), Some(([1, 2], [0, 1])));
        assert_eq!(heat([2.0; 16]).hot_region(), Some(([0, 3], [0, 3])));
        assert_eq!(heat([0.0; 16]).hot_region(), None);
    }
}
