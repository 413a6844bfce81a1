"""Bringing saved files back into a directory: first a plan of what would change, then the change, file by file, and back again.

`version` says what is to come and fetches it, `plan` compares that with what is there and changes it, `saved` says where else the
content of a file lies that is about to go, and `undo` brings back what was there before.
"""

from keepsake.checkout.plan import CheckoutPlan, checkout, plan_checkout
from keepsake.checkout.undo import Undo, UndoPlan, undo_place

__all__ = ["CheckoutPlan", "Undo", "UndoPlan", "checkout", "plan_checkout", "undo_place"]
