//! The error of a command, with the exit code of sysexits.h for every error of the library.

use crate::watch::outputs::Error as Outputs;
use crate::{backbone, config, model, page, pictures, training, watch};

/// Exit codes of sysexits.h, and the shell's of SIGINT.
pub mod exit {
    pub const USAGE: u8 = 64;
    pub const DATAERR: u8 = 65;
    pub const NOINPUT: u8 = 66;
    pub const UNAVAILABLE: u8 = 69;
    pub const SOFTWARE: u8 = 70;
    pub const CANTCREAT: u8 = 73;
    pub const IOERR: u8 = 74;
    pub const CONFIG: u8 = 78;
    pub const INTERRUPTED: u8 = 130;
}

/// The message to print and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: u8,
    pub message: String,
}

impl Error {
    pub fn new(code: u8, message: impl std::fmt::Display) -> Self {
        Error { code, message: message.to_string() }
    }
}

/// Conversions with the exit code of each kind of error.
macro_rules! from {
    ($($error:ty: $code:expr;)*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                let code: fn(&$error) -> u8 = $code;
                Error::new(code(&error), error)
            }
        })*
    };
}

from! {
    backbone::Error: of_backbone;
    backbone::quantize::Error: of_quantize;
    model::Error: of_model;
    training::fit::Error: of_fit;
    training::features::Error: of_features;
    training::grid::Error: of_grid;
    config::Error: |_| exit::CONFIG;
    config::edit::Error: of_edit;
    page::Error: of_page;
    pictures::Error: |_| exit::NOINPUT;
    watch::Error: of_watch;
}

fn of_backbone(error: &backbone::Error) -> u8 {
    use backbone::Error as E;
    match error {
        E::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => exit::NOINPUT,
        E::Io { .. } => exit::IOERR,
        E::NotOnnx { .. }
        | E::Unsupported { .. }
        | E::Tract { .. }
        | E::NoTap { .. }
        | E::UnknownRecipe { .. }
        | E::UnknownViews { .. }
        | E::Image(_) => exit::DATAERR,
        E::OtherFile { .. } | E::Kernels(_) => exit::CONFIG,
        E::UnknownTap(_) | E::UnknownPooling(_) => exit::USAGE,
        E::PictureSize { .. } | E::Run { .. } => exit::SOFTWARE,
    }
}

fn of_quantize(error: &backbone::quantize::Error) -> u8 {
    use backbone::quantize::Error as E;
    match error {
        E::Backbone(inner) => of_backbone(inner),
        E::Quantized { .. } | E::NoConvolution { .. } | E::Unsupported { .. } | E::NotFinite { .. } => exit::DATAERR,
        E::NoPictures => exit::NOINPUT,
        E::Interrupted => exit::INTERRUPTED,
    }
}

pub(super) fn of_model(error: &model::Error) -> u8 {
    use model::Error as E;
    match error {
        E::Read { .. } => exit::NOINPUT,
        E::Write { .. } => exit::IOERR,
        E::OtherBackbone { .. } | E::OtherMask { .. } | E::NoBudget { .. } | E::OtherNetwork { .. } => exit::CONFIG,
        E::Backbone(inner) => of_backbone(inner),
        E::Format { .. } | E::Width { .. } | E::NotFinite | E::Cells => exit::DATAERR,
    }
}

fn of_fit(error: &training::fit::Error) -> u8 {
    use training::fit::Error as E;
    match error {
        E::TooFew { .. } | E::Estimator(_) | E::Width { .. } | E::Cells => exit::DATAERR,
        E::Parameter(_) => exit::USAGE,
        E::Model(inner) => of_model(inner),
    }
}

fn of_features(error: &training::features::Error) -> u8 {
    use training::features::Error as E;
    match error {
        E::TooManyUnreadable { .. } => exit::DATAERR,
        E::Backbone(inner) => of_backbone(inner),
        E::Write { .. } => exit::IOERR,
        E::Width => exit::SOFTWARE,
        E::Interrupted => exit::INTERRUPTED,
    }
}

fn of_grid(error: &training::grid::Error) -> u8 {
    use training::grid::Error as E;
    match error {
        E::Fit(inner) => of_fit(inner),
        E::NoneWorked(_) => exit::DATAERR,
        E::Interrupted => exit::INTERRUPTED,
    }
}

fn of_edit(error: &config::edit::Error) -> u8 {
    match error {
        config::edit::Error::Unfit { .. } => exit::CONFIG,
        config::edit::Error::Write { .. } => exit::CANTCREAT,
    }
}

fn of_page(error: &page::Error) -> u8 {
    use page::Error as E;
    match error {
        E::Open(_) | E::SameName(_) | E::Reserved { .. } => exit::USAGE,
        E::ShortToken { .. } => exit::CONFIG,
        E::Token { .. } => exit::NOINPUT,
        E::Listen { .. } | E::Passed(_) => exit::UNAVAILABLE,
        E::Serve(_) => exit::SOFTWARE,
    }
}

fn of_watch(error: &watch::Error) -> u8 {
    match error {
        watch::Error::Camera(_) => exit::NOINPUT,
        watch::Error::Outputs(Outputs::Gpio(_) | Outputs::InUse { .. }) => exit::UNAVAILABLE,
        watch::Error::Outputs(Outputs::Thread(_)) => exit::SOFTWARE,
    }
}
