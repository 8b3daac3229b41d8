//! The file: encoded once, written whole or not at all.

use std::fs;
use std::path::Path;

use png::{BitDepth, ColorType, Compression, Encoder, PixelDimensions, Unit};

use crate::Error;
use crate::figure::Figure;

/// Dots per metre at which the figure is to be printed: 200 per inch.
const RESOLUTION: u32 = 7_874;

/// The bytes of a PNG file.
pub(crate) fn encode(figure: &Figure, title: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, figure.width, figure.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    encoder.set_pixel_dims(Some(PixelDimensions {
        xppu: RESOLUTION,
        yppu: RESOLUTION,
        unit: Unit::Meter,
    }));
    if !title.is_empty() {
        encoder.add_itxt_chunk("Title".to_owned(), title.to_owned())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&figure.rgb)?;
    writer.finish()?;
    Ok(bytes)
}

/// Writes the file under another name first, so that nobody reads half of it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|source| {
            // Nothing more can be done if this fails too.
            let _ = fs::remove_file(&partial);
            failed(source)
        })
}
