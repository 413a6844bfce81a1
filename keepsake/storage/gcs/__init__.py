"""Objects in a bucket of Google Cloud Storage. What keys mean belongs to `keepsake.repository`.

`store` fulfils the contract, with what `download` and `upload` do about broken connections; `client` and `errors` are its way to the client
library and back.
"""

from keepsake.storage.gcs.store import GCSStorage

__all__ = ["GCSStorage"]
