"""What a trial of Tune's is, as plain data: its identity, parameters and metrics, and its past in Tune's own files.

Both who writes runs (`tracking`) and who reads them (`analysis`) say the same of a trial, because both ask here.
"""
