//! One OCI image per configured model.
