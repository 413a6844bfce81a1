"""Objects in a bucket of S3, Amazon's or anybody's who speaks it. What keys mean belongs to `keepsake.repository`.

`store` fulfils the contract, with what `download` and `upload` do about broken connections; `client` and `errors` are its way to the client
library and back.
"""

from keepsake.storage.s3.store import S3Storage

__all__ = ["S3Storage"]
