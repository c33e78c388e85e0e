"""HTML reports: the page's head and style, shared by all reports."""
