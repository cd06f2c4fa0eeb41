//! Anomaly maps: how much each part of a picture departs from what the model knows.

/// A grid of values, row by row: distances of cells, or shares whose mean is the norm of the residual.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyMap {
    pub height: usize,
    pub width: usize,
    pub cells: Vec<f32>,
}

impl AnomalyMap {
    /// The hottest cell: row, column, value.
    pub fn hottest(&self) -> Option<(usize, usize, f32)> {
        let best = self.cells.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        Some((best.0 / self.width, best.0 % self.width, *best.1))
    }

    /// Interpolated linearly between the centres of the cells; `u` and `v` are shares of width and height.
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

    /// The first and last row and column, inclusive, of the cells that are connected with the hottest and at least half
    /// as hot, measured from the median; None where no value is positive.
    pub fn hot_region(&self) -> Option<([usize; 2], [usize; 2])> {
        let (row, column, hottest) = self.hottest().filter(|(.., share)| *share > 0.0)?;
        let mut sorted = self.cells.clone();
        sorted.sort_by(f32::total_cmp);
        let floor = sorted[sorted.len() / 2].max(0.0);
        let least = floor + 0.5 * (hottest - floor);
        let (mut rows, mut columns) = ([row; 2], [column; 2]);
        let mut hot: Vec<bool> = self.cells.iter().map(|value| *value >= least).collect();
        for at in connected(row * self.width + column, self.width, &mut hot) {
            let (row, column) = (at / self.width, at % self.width);
            rows = [rows[0].min(row), rows[1].max(row)];
            columns = [columns[0].min(column), columns[1].max(column)];
        }
        Some((rows, columns))
    }

    /// The map of a region of a picture: left, top, width, height in pixels.
    pub fn at(self, region: [f64; 4]) -> PlacedMap {
        PlacedMap { map: self, region }
    }
}

/// The places of a grid of `width` columns that are marked and connected with a marked one, by sides or corners. Their
/// marks are removed.
pub fn connected(start: usize, width: usize, marked: &mut [bool]) -> Vec<usize> {
    let height = marked.len() / width.max(1);
    marked[start] = false;
    let mut found = vec![start];
    let mut next = 0;
    while let Some(&at) = found.get(next) {
        next += 1;
        let (row, column) = (at / width, at % width);
        for y in row.saturating_sub(1)..(row + 2).min(height) {
            for x in column.saturating_sub(1)..(column + 2).min(width) {
                let at = y * width + x;
                if std::mem::take(&mut marked[at]) {
                    found.push(at);
                }
            }
        }
    }
    found
}

/// A map and where in a picture it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedMap {
    pub map: AnomalyMap,
    /// What the network saw: left, top, width, height in pixels of the picture.
    pub region: [f64; 4],
}

impl PlacedMap {
    /// A cell's left, top, width and height in pixels of the picture.
    pub fn cell(&self, row: usize, column: usize) -> [f64; 4] {
        let [left, top, width, height] = self.region;
        let (width, height) = (width / self.map.width as f64, height / self.map.height as f64);
        [left + column as f64 * width, top + row as f64 * height, width, height]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hot_region_is_connected() {
        let map = |cells: [f32; 16]| AnomalyMap { height: 4, width: 4, cells: cells.to_vec() };
        let cells = [0.0, 1.0, 0.0, 9.0, 0.0, 8.0, 0.0, 0.0, 5.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.5];
        // 9 stands alone; 8 and 5 touch at a corner.
        assert_eq!(map(cells).hot_region(), Some(([0, 0], [3, 3])));
        let cells = cells.map(|v| match v {
            9.0 => 0.0,
            8.5 => 1.0,
            v => v,
        });
        assert_eq!(map(cells).hot_region(), Some(([1, 2], [0, 1])));
        assert_eq!(map([2.0; 16]).hot_region(), Some(([0, 3], [0, 3])));
        assert_eq!(map([0.0; 16]).hot_region(), None);
    }
}
