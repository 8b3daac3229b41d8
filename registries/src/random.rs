//! Names that nobody else chooses.

use crate::Error;

/// 32 hexadecimal digits that are different each time.
pub(crate) fn text() -> Result<String, Error> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        Ok(_) => Err(Error::Broken(
            "the system gave too few random bytes".to_owned(),
        )),
        Err(error) => Err(Error::Broken(format!(
            "the system gives no random bytes ({error})"
        ))),
    }
}
