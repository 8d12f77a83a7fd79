"""Students that are subgraphs of their teacher (Gu & Tresp 2020, 2001.11612).

``structures`` finds what can be removed, ``units`` cuts the teacher into pieces that are measured, ``gates``
scales what can be removed, and ``selection`` drives gates to zero until the budgets are met.
"""
