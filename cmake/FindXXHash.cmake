# SPDX-License-Identifier: Apache-2.0
# Finds libxxhash; defines XXHash::XXHash, XXHash_FOUND and XXHash_VERSION.
find_path(XXHash_INCLUDE_DIR xxhash.h)
find_library(XXHash_LIBRARY xxhash)
mark_as_advanced(XXHash_INCLUDE_DIR XXHash_LIBRARY)

if(XXHash_INCLUDE_DIR AND EXISTS "${XXHash_INCLUDE_DIR}/xxhash.h")
  file(STRINGS "${XXHash_INCLUDE_DIR}/xxhash.h" xxhash_lines REGEX "^#define XXH_VERSION_(MAJOR|MINOR|RELEASE) +[0-9]+")
  string(REGEX MATCHALL "[0-9]+" xxhash_numbers "${xxhash_lines}")
  string(REPLACE ";" "." XXHash_VERSION "${xxhash_numbers}")
  unset(xxhash_lines)
  unset(xxhash_numbers)
endif()

include(FindPackageHandleStandardArgs)
# The digest of entries is XXH3-128, stable since 0.8.
if(NOT XXHash_FIND_VERSION)
  set(XXHash_FIND_VERSION 0.8)
endif()
find_package_handle_standard_args(XXHash
  REQUIRED_VARS XXHash_LIBRARY XXHash_INCLUDE_DIR VERSION_VAR XXHash_VERSION)

if(XXHash_FOUND AND NOT TARGET XXHash::XXHash)
  add_library(XXHash::XXHash UNKNOWN IMPORTED)
  set_target_properties(XXHash::XXHash PROPERTIES
    IMPORTED_LOCATION "${XXHash_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${XXHash_INCLUDE_DIR}")
endif()
