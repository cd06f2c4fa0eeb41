//! Every module, for tests and fuzz targets.

pub mod backbone {
    pub use crate::backbone::*;
}
pub mod camera {
    pub use crate::camera::*;
}
pub mod cli {
    pub use crate::cli::*;
}
pub mod config {
    pub use crate::config::*;
}
pub mod estimators {
    pub use crate::estimators::*;
}
pub mod fs {
    pub use crate::fs::*;
}
pub mod image {
    pub use crate::image::*;
}
pub mod model {
    pub use crate::model::*;
}
pub mod page {
    pub use crate::page::*;
}
pub mod pictures {
    pub use crate::pictures::*;
}
pub mod text {
    pub use crate::text::*;
}
pub mod training {
    pub use crate::training::*;
}
pub mod watch {
    pub use crate::watch::*;
}
