"""Small modules that fit one encoder to several tasks: PALs, low-rank and Houlsby adapters, LHUC, layers on top."""
