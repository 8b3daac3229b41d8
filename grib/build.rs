//! Finds ecCodes with pkg-config and links it dynamically.

fn main() {
    let probe = pkg_config::Config::new()
        .atleast_version("2.28")
        // Debian's file names folders that do not exist, so only those that do are passed on.
        .cargo_metadata(false)
        .probe("eccodes");
    match probe {
        Ok(library) => {
            for folder in library.link_paths.iter().filter(|path| path.is_dir()) {
                println!("cargo::rustc-link-search=native={}", folder.display());
            }
            println!("cargo::rustc-link-lib=dylib=eccodes");
        }
        Err(error) => println!(
            "cargo::error=ecCodes 2.28 or newer is missing ({error}): install libeccodes-dev and \
             pkg-config"
        ),
    }
}
